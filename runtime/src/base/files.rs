//! Files of settings: keys, certificates, secrets.
use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

/// The largest that is read, in bytes: a device or a log was named by mistake.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// Reads a file.
///
/// # Errors
/// When it can't be read, or is larger than [`MAX_BYTES`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// Reads a text.
///
/// # Errors
/// As [`read`]; or when it is no UTF-8.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// As [`read_text`], on a thread that may wait: while the process runs, a file that is slow to come stops nobody else.
///
/// # Errors
/// As [`read_text`].
pub(crate) async fn read_text_later(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || read_text(&path)).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_not_read_to_it() {
        let error = read(Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("larger than"), "{error}");
        assert_eq!(read_text(Path::new("/dev/null")).unwrap(), "");
    }
}
