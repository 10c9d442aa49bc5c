#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gpb_fuzz::run("remembered", data));
