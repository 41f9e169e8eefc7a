//! Requests as the edge reads them, without servers: for fuzzing.
use crate::{App, Class, base::Caller, edge::Contract, triggers::rpc::Read};
use bytes::Bytes;
use connectrpc::CodecFormat;

/// Reads any bytes as a request of each of an application's methods.
pub struct Requests {
    methods: Vec<(Contract, Read)>,
    caller: Caller,
}

impl Requests {
    /// Of these methods.
    ///
    /// # Errors
    /// When the contracts can't be read.
    pub fn of(app: &App) -> anyhow::Result<Self> {
        let caller = Caller { subject: "somebody".to_owned(), roles: ["ops".to_owned()].into(), expires_at: i64::MAX };
        Ok(Self { methods: app.readers()?, caller })
    }

    /// Reads these bytes, as protobuf and as JSON, as a request of every method, as far as to what it means. Returns
    /// how often that was a request.
    ///
    /// # Panics
    /// When one of them finds a fault of ours, rather than of whoever sent the bytes.
    pub fn read(&self, bytes: &[u8]) -> usize {
        let mut good = 0;
        for (contract, read) in &self.methods {
            for format in [CodecFormat::Proto, CodecFormat::Json] {
                let request = contract.request(Bytes::copy_from_slice(bytes), format);
                match request.and_then(|request| read(request, &self.caller)) {
                    Ok(()) => good += 1,
                    Err(error) => assert_ne!(error.class(), Class::Internal, "{contract}: {error}"),
                }
            }
        }
        good
    }
}
