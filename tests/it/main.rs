//! Integration tests: the library and the real programs.
mod cli;
mod documents;
mod floors;
mod keys;
mod merkle_oracle;
