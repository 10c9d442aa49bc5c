//! One binary for all tests of the library and the programs on one host.

mod discovery;
