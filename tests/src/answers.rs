//! What in a server's words is the answer to what was asked, and what only leads to it.

/// A server's language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PostgreSQL's, <https://www.postgresql.org/docs/current/protocol-message-formats.html>. What it says to the
    /// preparation of a statement is no answer yet: the statement has not run.
    Postgres,
    /// Any other: whatever comes is an answer.
    Bytes,
}

/// Sifts the words of one connection.
pub struct Answers {
    protocol: Protocol,
    rest: Vec<u8>,
    /// True between the preparation of a statement and the end of what is said to it.
    prepares: bool,
}

/// A message's kind and length.
const HEADER: usize = 5;

impl Answers {
    /// From a moment at which nothing is being said.
    pub fn of(protocol: Protocol) -> Self {
        Self { protocol, rest: Vec::new(), prepares: false }
    }

    /// Gives what may go through, and how many answers were complete in the rest.
    pub fn sift(&mut self, bytes: &[u8]) -> (Vec<u8>, usize) {
        if self.protocol == Protocol::Bytes {
            return (Vec::new(), 1);
        }
        self.rest.extend_from_slice(bytes);
        let (mut through, mut count) = (Vec::new(), 0);
        while let Some(length) = self.message() {
            let message: Vec<u8> = self.rest.drain(..length).collect();
            // ParseComplete, then ParameterDescription and RowDescription or NoData, then ReadyForQuery.
            self.prepares |= message[0] == b'1';
            let is_ready = message[0] == b'Z';
            if self.prepares {
                through.extend(message);
            } else {
                count += usize::from(is_ready);
            }
            self.prepares &= !is_ready;
        }
        (through, count)
    }

    /// The length of the message that is there whole.
    fn message(&self) -> Option<usize> {
        let length = u32::from_be_bytes(self.rest.get(1..HEADER)?.try_into().ok()?);
        let length = usize::try_from(length).ok()? + 1;
        (self.rest.len() >= length).then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    #[test]
    fn a_preparation_goes_through_and_the_answer_is_lost_however_it_is_cut_up() {
        let prepared = [message(b'1', b""), message(b't', b"12"), message(b'n', b""), message(b'Z', b"T")].concat();
        let answer = [message(b'2', b""), message(b'C', b"UPDATE 1\0"), message(b'Z', b"T")].concat();
        for size in [1, 3, 1_000] {
            let (mut answers, mut through, mut count) = (Answers::of(Protocol::Postgres), Vec::new(), 0);
            for chunk in [prepared.clone(), answer.clone()].concat().chunks(size) {
                let (some, found) = answers.sift(chunk);
                through.extend(some);
                count += found;
            }
            assert_eq!((&through, count), (&prepared, 1), "in pieces of {size}");
        }
    }
}
