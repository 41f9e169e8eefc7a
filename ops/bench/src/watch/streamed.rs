//! An answer over HTTP/1.1 that goes on for as long as both sides like, read at the least cost: the machine is shared
//! with what is measured.
use anyhow::{Context, bail};
use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Between an answer's head and its body.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
const LINE_END: &[u8] = b"\r\n";

/// The body, in chunks (RFC 9112, 7.1).
pub(super) struct Streamed {
    stream: TcpStream,
    /// What has come and was not looked at.
    raw: BytesMut,
    /// What is still to come of the chunk being read, its line end included.
    left: usize,
}

impl Streamed {
    /// Posts that over a connection and reads the answer's head.
    pub(super) async fn post(
        mut stream: TcpStream,
        path: &str,
        content_type: &str,
        more: &str,
        body: &[u8],
    ) -> anyhow::Result<Self> {
        stream.set_nodelay(true)?;
        let address = stream.peer_addr()?;
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: {content_type}\r\n{more}content-length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut raw = BytesMut::with_capacity(1_024);
        let end = loop {
            if let Some(end) = raw.windows(END_OF_HEAD.len()).position(|bytes| bytes == END_OF_HEAD) {
                break end + END_OF_HEAD.len();
            }
            if stream.read_buf(&mut raw).await? == 0 {
                bail!("{path}: the connection was closed before the answer");
            }
        };
        let head = String::from_utf8_lossy(&raw.split_to(end)).to_ascii_lowercase();
        if !head.starts_with("http/1.1 200") || !head.contains("transfer-encoding: chunked") {
            bail!("{path}: {head}{}", String::from_utf8_lossy(&raw));
        }
        Ok(Self { stream, raw, left: 0 })
    }

    /// Adds what comes next to `body`. False at the end.
    pub(super) async fn read(&mut self, body: &mut BytesMut) -> anyhow::Result<bool> {
        let before = body.len();
        loop {
            while self.take_chunk(body)? {}
            if body.len() > before {
                return Ok(true);
            }
            if self.stream.read_buf(&mut self.raw).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// Moves a piece over. False where more must come first.
    fn take_chunk(&mut self, body: &mut BytesMut) -> anyhow::Result<bool> {
        if self.left == 0 {
            let Some(end) = self.raw.windows(2).position(|bytes| bytes == LINE_END) else { return Ok(false) };
            let line = self.raw.split_to(end);
            self.raw.advance(LINE_END.len());
            let size = std::str::from_utf8(&line)?.split(';').next().unwrap_or_default();
            self.left = usize::from_str_radix(size, 16).context("a chunk's size")? + LINE_END.len();
        }
        let taken = self.left.min(self.raw.len());
        let piece = self.raw.split_to(taken);
        let data = self.left.saturating_sub(LINE_END.len()).min(taken);
        body.extend_from_slice(&piece[..data]);
        self.left -= taken;
        Ok(taken > 0)
    }
}
