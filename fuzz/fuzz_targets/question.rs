#![no_main]

libfuzzer_sys::fuzz_target!(init: attnkit_fuzz::let_panics_be_caught(), |data: &[u8]| attnkit_fuzz::question(data));
