#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gpb_fuzz::run("peer_file", data));
