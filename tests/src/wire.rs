//! What clients send, byte for byte.
use bytes::{BufMut, Bytes, BytesMut};

/// A gRPC or Connect frame.
pub fn frame(flags: u8, message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(flags);
    framed.put_u32(u32::try_from(message.len()).expect("small"));
    framed.put_slice(message);
    framed.freeze()
}
