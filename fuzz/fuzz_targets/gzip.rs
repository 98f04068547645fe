#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| attnkit_fuzz::gzip(data));
