//! Whatever bytes come as a request, in protobuf or in JSON, whichever method it is of: it is read, or it is an error
//! of the caller's. Seeds are in `tests/corpus`.
#![no_main]

use gavel_runtime::testing::Requests;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static REQUESTS: LazyLock<Requests> = LazyLock::new(|| Requests::of(&gavel::app()).expect("the contracts"));

fuzz_target!(|bytes: &[u8]| {
    REQUESTS.read(bytes);
});
