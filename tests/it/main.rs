//! Tests of the whole library and of the programs.

mod merkle_oracle;
