//! Frames between a worker and its child: four bytes of length, one that names the serializer, and
//! a map in it.
//!
//! The serializer is that of the task's message, so that its arguments and results arrive exactly
//! as they would without a child. **Invariant:** no frame above [`BYTES_MAX`] is read or written.

use std::io::{self, Read, Write};
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::{facts, verdict};
use crate::protocol::{Limits, Map, Serializer, Value};
use crate::task::Request;

/// The largest body of a frame: somewhat more than that of a message.
const BYTES_MAX: usize = 130 << 20;

/// Length and serializer.
const HEAD: usize = 5;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// A worker's word to its child.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ToChild {
    /// Run this.
    Job { request: Arc<Request>, args: Vec<Value>, kwargs: Map },
    /// The task is asked to end.
    Cancel { out_of_time: bool },
    /// The state update of this number was published, or not.
    Updated { number: u64, error: Option<String> },
}

/// A child's word to its worker.
#[derive(Debug)]
pub(super) enum ToParent {
    /// The job is here: from now on the task may have had effects.
    Begun,
    /// Publish a state of the task.
    Update { number: u64, state: String, meta: Value },
    /// Tell monitors something of the task's own.
    Event { name: String, fields: Map },
    /// The task has ended, has called these, and has added these to its chord.
    Ended { verdict: verdict::Verdict, children: Vec<Value>, added: Vec<Value> },
}

impl ToChild {
    pub(super) fn encode(self, serializer: Serializer) -> io::Result<Vec<u8>> {
        let mut map = Map::new();
        match self {
            Self::Job { request, args, kwargs } => {
                map.push("kind", "job");
                map.push("request", facts::to_map(&request));
                map.push("args", Value::Array(args));
                map.push("kwargs", kwargs);
            }
            Self::Cancel { out_of_time } => {
                map.push("kind", "cancel");
                map.push("out_of_time", out_of_time);
            }
            Self::Updated { number, error } => {
                map.push("kind", "updated");
                map.push("number", number_value(number));
                map.push("error", error);
            }
        }
        encode(map, serializer)
    }

    fn decode(mut map: Map) -> Option<Self> {
        match map.get("kind")?.as_str()? {
            "job" => {
                let Some(Value::Map(request)) = map.remove("request") else { return None };
                let Some(Value::Array(args)) = map.remove("args") else { return None };
                let Some(Value::Map(kwargs)) = map.remove("kwargs") else { return None };
                Some(Self::Job { request: Arc::new(facts::from_map(request)?), args, kwargs })
            }
            "cancel" => Some(Self::Cancel { out_of_time: map.get("out_of_time")?.as_bool()? }),
            "updated" => {
                let error = map.get("error").and_then(Value::as_str).map(str::to_owned);
                Some(Self::Updated { number: number_of(&map)?, error })
            }
            _ => None,
        }
    }

    /// Waits for the next one on a thread; `None` when the worker has gone.
    pub(super) fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD];
        match stream.read_exact(&mut head) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done?,
        }
        let (length, serializer) = read_head(head)?;
        let mut body = Vec::new();
        stream.by_ref().take(length as u64).read_to_end(&mut body)?;
        let map = decode(&body, serializer)?;
        Self::decode(map).map(Some).ok_or_else(|| garbage("a frame that the child cannot read"))
    }
}

impl ToParent {
    pub(super) fn write(self, serializer: Serializer, stream: &mut impl Write) -> io::Result<()> {
        let mut map = Map::new();
        match self {
            Self::Begun => map.push("kind", "begun"),
            Self::Update { number, state, meta } => {
                map.push("kind", "update");
                map.push("number", number_value(number));
                map.push("state", state);
                map.push("meta", meta);
            }
            Self::Event { name, fields } => {
                map.push("kind", "event");
                map.push("name", name);
                map.push("fields", fields);
            }
            Self::Ended { verdict, children, added } => {
                map.push("kind", "ended");
                map.push("verdict", verdict.into_map());
                map.push("children", Value::Array(children));
                map.push("added", Value::Array(added));
            }
        }
        stream.write_all(&encode(map, serializer)?)
    }

    fn decode(mut map: Map) -> Option<Self> {
        match map.get("kind")?.as_str()? {
            "begun" => Some(Self::Begun),
            "update" => {
                let number = number_of(&map)?;
                let state = map.get("state")?.as_str()?.to_owned();
                Some(Self::Update { number, state, meta: map.remove("meta")? })
            }
            "event" => {
                let name = map.get("name")?.as_str()?.to_owned();
                let Some(Value::Map(fields)) = map.remove("fields") else { return None };
                Some(Self::Event { name, fields })
            }
            "ended" => {
                let Some(Value::Map(verdict)) = map.remove("verdict") else { return None };
                let Some(Value::Array(children)) = map.remove("children") else { return None };
                let Some(Value::Array(added)) = map.remove("added") else { return None };
                let verdict = verdict::Verdict::from_map(verdict)?;
                Some(Self::Ended { verdict, children, added })
            }
            _ => None,
        }
    }
}

/// The worker's end of the connection to a child.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    /// What was read and is no whole frame yet.
    buffer: Vec<u8>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(super) async fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(frame).await
    }

    /// The next frame; `None` when the child has gone. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<ToParent>> {
        loop {
            if let Some(map) = self.take_frame()? {
                let frame = ToParent::decode(map);
                return frame.map(Some).ok_or_else(|| garbage("a frame that nobody can read"));
            }
            self.stream.readable().await?;
            self.buffer.reserve(CHUNK);
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn take_frame(&mut self) -> io::Result<Option<Map>> {
        let Some(head) = self.buffer.first_chunk::<HEAD>() else { return Ok(None) };
        let (length, serializer) = read_head(*head)?;
        let Some(body) = self.buffer.get(HEAD..HEAD + length) else { return Ok(None) };
        let map = decode(body, serializer)?;
        self.buffer.drain(..HEAD + length);
        // A large result must not stay in the memory of a pool.
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * CHUNK {
            self.buffer = Vec::new();
        }
        Ok(Some(map))
    }
}

fn encode(map: Map, serializer: Serializer) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEAD];
    serializer.encode(&Value::Map(map), &mut frame).map_err(io::Error::other)?;
    let length = u32::try_from(frame.len() - HEAD).ok().filter(|it| *it as usize <= BYTES_MAX);
    let length = length.ok_or_else(|| garbage("more than 130 MiB"))?;
    if let Some((head, _)) = frame.split_first_chunk_mut::<HEAD>() {
        let [a, b, c, d] = length.to_be_bytes();
        *head = [a, b, c, d, u8::from(serializer == Serializer::Json)];
    }
    Ok(frame)
}

fn read_head([a, b, c, d, json]: [u8; HEAD]) -> io::Result<(usize, Serializer)> {
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > BYTES_MAX || json > 1 {
        return Err(garbage("bytes that are no frame"));
    }
    Ok((length, if json == 1 { Serializer::Json } else { Serializer::Msgpack }))
}

fn decode(body: &[u8], serializer: Serializer) -> io::Result<Map> {
    // The limits of a message, and some room for what is around it.
    let Limits { depth_max, items_max, .. } = Limits::default();
    let limits =
        Limits { bytes_max: BYTES_MAX, depth_max: depth_max + 8, items_max: items_max * 2 };
    match serializer.decode(body, &limits) {
        Ok(Value::Map(map)) => Ok(map),
        Ok(_) => Err(garbage("a frame that is no map")),
        Err(failed) => Err(io::Error::other(failed)),
    }
}

fn number_value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number_of(map: &Map) -> Option<u64> {
    u64::try_from(map.get("number")?.as_i64()?).ok()
}

fn garbage(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(check: impl Fn(Serializer)) {
        check(Serializer::Msgpack);
        check(Serializer::Json);
    }

    #[test]
    fn words_to_a_child_arrive_as_they_were_sent() {
        both(|serializer| {
            let request = Request { id: "1".to_owned(), serializer, ..Request::default() };
            let (args, kwargs) = (vec![Value::Bytes(vec![0, 255])], Map::from_iter([("k", 1)]));
            let job = ToChild::Job { request: Arc::new(request), args, kwargs };
            let refused = ToChild::Updated { number: 7, error: Some("no".to_owned()) };
            let published = ToChild::Updated { number: 8, error: None };
            for word in [job, ToChild::Cancel { out_of_time: true }, refused, published] {
                let bytes = word.clone().encode(serializer).unwrap();
                let mut stream = bytes.as_slice();
                assert_eq!(ToChild::read(&mut stream).unwrap(), Some(word));
                assert_eq!(ToChild::read(&mut stream).unwrap(), None, "nothing is left");
            }
        });
    }

    #[tokio::test]
    async fn a_frame_that_comes_in_pieces_is_read_as_one() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut channel, mut child) = (Channel::new(ours), theirs);
        let mut bytes = Vec::new();
        for number in [1, 2] {
            let update = ToParent::Update { number, state: "P".to_owned(), meta: Value::Null };
            update.write(Serializer::Json, &mut bytes).unwrap();
        }
        let (first, rest) = bytes.split_at(7);
        child.write_all(first).await.unwrap();
        {
            let mut next = std::pin::pin!(channel.next());
            assert!(futures::poll!(&mut next).is_pending(), "and what was read is kept");
        }
        child.write_all(rest).await.unwrap();
        drop(child);
        for expected in [1, 2] {
            let Some(ToParent::Update { number, .. }) = channel.next().await.unwrap() else {
                panic!("an update was sent");
            };
            assert_eq!(number, expected);
        }
        assert!(channel.next().await.unwrap().is_none());
    }

    #[test]
    fn garbage_is_an_error_and_takes_no_memory() {
        for bytes in [&[255, 255, 255, 255, 0][..], &[0, 0, 0, 1, 9, 1], &[0, 0, 0, 1, 0, 0xc1]] {
            let mut stream = bytes;
            assert!(ToChild::read(&mut stream).is_err(), "{bytes:?}");
        }
    }
}
