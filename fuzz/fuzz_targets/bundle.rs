#![no_main]

libfuzzer_sys::fuzz_target!(init: engraft_fuzz::prepare(), |bytes: &[u8]| {
    engraft_fuzz::targets::bundle(bytes);
});
