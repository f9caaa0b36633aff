//! SPDY/3.1, the server's side, as far as Kubernetes' streams need it: clients open streams, both sides send data and end
//! them, and whoever is asked with a PING answers. There is no flow control (clients' library, moby/spdystream, has none
//! either): a stream that nobody reads holds the whole connection up, and so bounds its memory.
//!
//! Wire format: "SPDY Protocol - Draft 3.1", sections 2.2, 2.6 and 2.6.10.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::collections::{BTreeMap, HashMap};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const FIN: u8 = 1;

/// Status of a RST_STREAM.
#[derive(Debug, Clone, Copy)]
enum Reset {
    Protocol = 1,
    Refused = 3,
}

/// A control frame holds a few headers; a longer one is no frame of ours.
const MAX_CONTROL: usize = 64 * 1024;
/// A header block, decompressed.
const MAX_HEADERS: usize = 64 * 1024;
/// Streams of one connection: two for each connection that is forwarded.
const MAX_STREAMS: usize = 512;
/// Data is handed on in pieces of this size at most.
const PIECE: usize = 32 * 1024;
/// Pieces that wait for a stream's reader, and frames that wait for the connection.
const QUEUE: usize = 16;

/// What the zlib streams of header blocks start from (section 2.6.10.1): names and values that HTTP often has, those of
/// the first list with their length before them.
fn dictionary() -> Vec<u8> {
    const COUNTED: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards \
        pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding \
        upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public \
        set-cookie keep-alive origin";
    const PLAIN: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
        404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug \
        Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
        application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
        charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut bytes = Vec::with_capacity(1423);
    for word in COUNTED.split_whitespace() {
        let word = word.replace('_', " ");
        bytes.put_u32(u32::try_from(word.len()).unwrap_or_default());
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(PLAIN.as_bytes());
    bytes
}

/// What comes over a stream.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// Bytes, in order.
    Data(Bytes),
    /// The client has given the stream up.
    Reset,
}

/// A stream that the client opened.
#[derive(Debug)]
pub(super) struct Stream {
    /// The headers that it was opened with, names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    /// What comes; ends when the client ends its side, or the connection ends.
    pub(super) incoming: mpsc::Receiver<Incoming>,
    /// Where to send.
    pub(super) sender: Sender,
}

/// The server's side of a stream.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    id: u32,
    frames: mpsc::Sender<Bytes>,
}

/// The connection has ended.
#[derive(Debug)]
pub(super) struct Ended;

impl Sender {
    /// Sends bytes, in frames of a bounded size.
    pub(super) async fn send(&self, bytes: &[u8]) -> Result<(), Ended> {
        for piece in bytes.chunks(PIECE) {
            self.frames.send(data_frame(self.id, 0, piece)).await.map_err(|_| Ended)?;
        }
        Ok(())
    }

    /// Ends the server's side.
    pub(super) async fn finish(&self) {
        // A connection that has ended needs no end of a stream.
        let _ended = self.frames.send(data_frame(self.id, FIN, &[])).await;
    }

    /// Gives the stream up: the client did something that the protocol does not have.
    pub(super) async fn refuse(&self) {
        let _ended = self.frames.send(reset_frame(self.id, Reset::Protocol)).await;
    }
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    /// The streams that the client opens; ends with the connection.
    pub(super) streams: mpsc::Receiver<Stream>,
    /// Ends the connection when dropped, after what was sent before has been written.
    closing: tokio_util::sync::DropGuard,
}

impl Session {
    /// Serves a connection in tasks of its own.
    pub(super) fn serve(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Session {
        let closing = CancellationToken::new();
        let (reader, writer) = tokio::io::split(io);
        let (frames, outgoing) = mpsc::channel(QUEUE);
        let (opened, streams) = mpsc::channel(QUEUE);
        let token = closing.clone();
        tokio::spawn(write(writer, outgoing));
        tokio::spawn(async move {
            let mut connection = Connection {
                frames,
                opened,
                open: HashMap::new(),
                headers: HeaderBlocks::new(),
                last: 0,
            };
            let ended = tokio::select! {
                ended = connection.read(reader) => ended,
                () = token.cancelled() => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a stream connection ended");
            }
            let last = connection.last;
            let _ended = connection.frames.send(goaway_frame(last)).await;
        });
        Session { streams, closing: closing.drop_guard() }
    }

    /// The next stream; `None` when the connection has ended.
    pub(super) async fn accept(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }

    /// Ends the connection, after what was sent before has been written.
    pub(super) fn close(self) {
        drop(self.closing);
    }
}

async fn write(mut writer: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Bytes>) {
    while let Some(frame) = frames.recv().await {
        let written = writer.write_all(&frame).await.is_ok() && writer.flush().await.is_ok();
        if !written {
            return;
        }
    }
    if let Err(error) = writer.shutdown().await {
        tracing::debug!(%error, "a stream connection could not be shut down");
    }
}

/// The reading side.
struct Connection {
    frames: mpsc::Sender<Bytes>,
    opened: mpsc::Sender<Stream>,
    /// Where the data of streams goes whose client side is open.
    open: HashMap<u32, mpsc::Sender<Incoming>>,
    headers: HeaderBlocks,
    last: u32,
}

impl Connection {
    async fn read(&mut self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        loop {
            let mut head = [0; 8];
            match reader.read_exact(&mut head).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            let (word, flags, length) = (
                u32::from_be_bytes([head[0], head[1], head[2], head[3]]),
                head[4],
                u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize,
            );
            if word >> 31 == 0 {
                self.data(&mut reader, word, flags, length).await?;
                continue;
            }
            if (word >> 16) as u16 & 0x7fff != VERSION {
                return Err(bad("the client does not speak SPDY/3"));
            }
            if length > MAX_CONTROL {
                return Err(bad("a control frame is too long"));
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).await?;
            self.control(word as u16, flags, Bytes::from(body)).await?;
        }
    }

    async fn data(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        id: u32,
        flags: u8,
        mut length: usize,
    ) -> io::Result<()> {
        while length > 0 {
            let mut piece = vec![0; length.min(PIECE)];
            reader.read_exact(&mut piece).await?;
            length -= piece.len();
            if let Some(stream) = self.open.get(&id) {
                // Nobody reads it any more: what still comes is dropped.
                let _unread = stream.send(Incoming::Data(piece.into())).await;
            }
        }
        if flags & FIN != 0 {
            self.open.remove(&id);
        }
        Ok(())
    }

    async fn control(&mut self, kind: u16, flags: u8, mut body: Bytes) -> io::Result<()> {
        match kind {
            SYN_STREAM => {
                if body.len() < 10 {
                    return Err(bad("a SYN_STREAM is too short"));
                }
                let id = body.get_u32() & 0x7fff_ffff;
                body.advance(6); // Associated stream, priority, slot.
                let headers = self.headers.decode(&body)?;
                self.open_stream(id, flags, headers).await
            }
            RST_STREAM if body.len() >= 4 => {
                let id = body.get_u32() & 0x7fff_ffff;
                if let Some(stream) = self.open.remove(&id) {
                    let _unread = stream.send(Incoming::Reset).await;
                }
                Ok(())
            }
            PING => self.reply(control_frame(PING, 0, &body)).await,
            HEADERS if body.len() >= 4 => {
                body.advance(4);
                // The compression has a memory: also what is not needed has to be read.
                self.headers.decode(&body).map(drop)
            }
            GOAWAY => Ok(()),
            // SETTINGS, WINDOW_UPDATE and what a later version may bring mean nothing here.
            _ => Ok(()),
        }
    }

    async fn open_stream(
        &mut self,
        id: u32,
        flags: u8,
        headers: BTreeMap<String, String>,
    ) -> io::Result<()> {
        if id == 0 || id.is_multiple_of(2) || id <= self.last {
            return Err(bad("a stream has an identifier that it may not have"));
        }
        self.last = id;
        self.open.retain(|_, stream| !stream.is_closed());
        if self.open.len() >= MAX_STREAMS {
            return self.reply(reset_frame(id, Reset::Refused)).await;
        }
        let (sender, incoming) = mpsc::channel(QUEUE);
        if flags & FIN == 0 {
            self.open.insert(id, sender);
        }
        let block = self.headers.encode_empty()?;
        let mut body = id.to_be_bytes().to_vec();
        body.extend_from_slice(&block);
        self.reply(control_frame(SYN_REPLY, 0, &body)).await?;
        let sender = Sender { id, frames: self.frames.clone() };
        self.opened
            .send(Stream { headers, incoming, sender })
            .await
            .map_err(|_| bad("no more streams are wanted"))
    }

    async fn reply(&self, frame: Bytes) -> io::Result<()> {
        self.frames.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn frame(word: u32, flags: u8, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + body.len());
    frame.put_u32(word);
    frame.put_u32(u32::from(flags) << 24 | u32::try_from(body.len()).unwrap_or_default());
    frame.put_slice(body);
    frame.freeze()
}

fn data_frame(id: u32, flags: u8, bytes: &[u8]) -> Bytes {
    frame(id, flags, bytes)
}

fn control_frame(kind: u16, flags: u8, body: &[u8]) -> Bytes {
    frame(0x8000_0000 | u32::from(VERSION) << 16 | u32::from(kind), flags, body)
}

fn reset_frame(id: u32, status: Reset) -> Bytes {
    control_frame(RST_STREAM, 0, &[id.to_be_bytes(), (status as u32).to_be_bytes()].concat())
}

fn goaway_frame(last: u32) -> Bytes {
    control_frame(GOAWAY, 0, &[last.to_be_bytes(), 0u32.to_be_bytes()].concat())
}

/// The two zlib streams that all header blocks of a connection are part of.
struct HeaderBlocks {
    dictionary: Vec<u8>,
    inflate: Decompress,
    deflate: Compress,
}

impl HeaderBlocks {
    fn new() -> HeaderBlocks {
        let dictionary = dictionary();
        let mut deflate = Compress::new(Compression::fast(), true);
        if let Err(error) = deflate.set_dictionary(&dictionary) {
            tracing::warn!(%error, "the dictionary of header blocks was not taken");
        }
        HeaderBlocks { dictionary, inflate: Decompress::new(true), deflate }
    }

    fn decode(&mut self, block: &[u8]) -> io::Result<BTreeMap<String, String>> {
        let mut plain = self.inflate(block)?;
        let count = number(&mut plain)?;
        let mut headers = BTreeMap::new();
        for _ in 0..count {
            let name = text(&mut plain)?;
            let value = text(&mut plain)?;
            headers.insert(name.to_ascii_lowercase(), value);
        }
        Ok(headers)
    }

    fn inflate(&mut self, block: &[u8]) -> io::Result<Bytes> {
        let mut plain = Vec::with_capacity(1024);
        let start = self.inflate.total_in();
        loop {
            let read = usize::try_from(self.inflate.total_in() - start).unwrap_or(usize::MAX);
            let rest = block.get(read..).unwrap_or_default();
            if plain.len() == plain.capacity() {
                plain.reserve(plain.len());
            }
            if plain.len() > MAX_HEADERS {
                return Err(bad("a header block is too long"));
            }
            let before = (self.inflate.total_in(), self.inflate.total_out());
            match self.inflate.decompress_vec(rest, &mut plain, FlushDecompress::Sync) {
                Ok(Status::StreamEnd) => return Err(bad("the header blocks' stream has ended")),
                Ok(Status::Ok | Status::BufError) => {
                    let after = (self.inflate.total_in(), self.inflate.total_out());
                    let all_read = after.0 - start == block.len() as u64;
                    if all_read && plain.len() < plain.capacity() {
                        return Ok(plain.into());
                    }
                    if before == after && plain.len() < plain.capacity() {
                        return Err(bad("a header block cannot be decompressed"));
                    }
                }
                Err(error) if error.needs_dictionary().is_some() => {
                    self.inflate
                        .set_dictionary(&self.dictionary)
                        .map_err(|_| bad("a header block uses another dictionary"))?;
                }
                Err(_) => return Err(bad("a header block cannot be decompressed")),
            }
        }
    }

    /// A block without headers.
    fn encode_empty(&mut self) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(64);
        self.deflate
            .compress_vec(&0u32.to_be_bytes(), &mut block, FlushCompress::Sync)
            .map_err(|_| bad("a header block could not be compressed"))?;
        Ok(block)
    }
}

fn number(plain: &mut Bytes) -> io::Result<usize> {
    if plain.len() < 4 {
        return Err(bad("a header block is cut off"));
    }
    Ok(plain.get_u32() as usize)
}

fn text(plain: &mut Bytes) -> io::Result<String> {
    let length = number(plain)?;
    if plain.len() < length {
        return Err(bad("a header block is cut off"));
    }
    Ok(String::from_utf8_lossy(&plain.split_to(length)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's header blocks.
    struct Client(Compress);

    impl Client {
        fn new() -> Client {
            let mut deflate = Compress::new(Compression::best(), true);
            deflate.set_dictionary(&dictionary()).unwrap();
            Client(deflate)
        }

        fn syn_stream(&mut self, id: u32, flags: u8, headers: &[(&str, &str)]) -> Bytes {
            let mut plain = Vec::new();
            plain.put_u32(headers.len() as u32);
            for (name, value) in headers {
                for text in [name, value] {
                    plain.put_u32(text.len() as u32);
                    plain.put_slice(text.as_bytes());
                }
            }
            let mut body = [&id.to_be_bytes()[..], &[0; 6]].concat();
            body.reserve(64 * 1024);
            self.0.compress_vec(&plain, &mut body, FlushCompress::Sync).unwrap();
            control_frame(SYN_STREAM, flags, &body)
        }
    }

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        let dictionary = dictionary();
        assert_eq!(dictionary.len(), 1423);
        // Every SPDY/3 header block begins with these bytes, the last four of which are the dictionary's checksum.
        let block = HeaderBlocks::new().encode_empty().unwrap();
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[tokio::test]
    async fn streams_carry_data_both_ways_until_each_side_ends() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut session = Session::serve(server);
        let mut blocks = Client::new();
        for id in [1, 3] {
            let opened = blocks.syn_stream(id, 0, &[("StreamType", "data"), ("port", "80")]);
            client.write_all(&opened).await.unwrap();
        }
        client.write_all(&data_frame(3, FIN, b"hello")).await.unwrap();
        let first = session.accept().await.unwrap();
        let mut second = session.accept().await.unwrap();
        assert_eq!(first.headers["streamtype"], "data");
        assert_eq!(second.headers["port"], "80");
        assert_eq!(second.incoming.recv().await, Some(Incoming::Data("hello".into())));
        assert_eq!(second.incoming.recv().await, None);
        second.sender.send(b"world").await.unwrap();
        second.sender.finish().await;
        drop((first, second));
        session.close();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        let world = data_frame(3, 0, b"world");
        let at = all.windows(world.len()).position(|window| window == world).unwrap();
        assert_eq!(all[at + world.len()..][..8], data_frame(3, FIN, b"")[..]);
        assert!(all.ends_with(&goaway_frame(3)));
    }

    #[tokio::test]
    async fn a_ping_is_answered_and_a_reset_is_told() {
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let mut session = Session::serve(server);
        let ping = control_frame(PING, 0, &7u32.to_be_bytes());
        client.write_all(&ping).await.unwrap();
        let mut answer = vec![0; ping.len()];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, ping);
        client.write_all(&Client::new().syn_stream(1, 0, &[])).await.unwrap();
        client.write_all(&reset_frame(1, Reset::Protocol)).await.unwrap();
        let mut stream = session.accept().await.unwrap();
        assert_eq!(stream.incoming.recv().await, Some(Incoming::Reset));
        assert_eq!(stream.incoming.recv().await, None);
    }

    #[tokio::test]
    async fn a_client_that_breaks_the_protocol_loses_its_connection_only() {
        let even = Client::new().syn_stream(2, 0, &[]);
        let bomb = Client::new().syn_stream(1, 0, &[("x", &"0".repeat(MAX_HEADERS * 2))]);
        let short = control_frame(SYN_STREAM, 0, &[0; 5]);
        let garbage = control_frame(SYN_STREAM, 0, &[0xff; 40]);
        let version = frame(0x8002_0001, 0, &[]);
        let long = frame(0x8003_0006, 0xff, &[]).slice(..5).to_vec();
        let long = [&long[..], &[0xff; 3]].concat();
        for bytes in [&even[..], &bomb, &short, &garbage, &version, &long] {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            let mut session = Session::serve(server);
            client.write_all(bytes).await.unwrap();
            assert!(session.accept().await.is_none(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn more_streams_than_allowed_are_refused_one_by_one() {
        let (client, server) = tokio::io::duplex(1 << 20);
        let mut session = Session::serve(server);
        let (mut reader, mut writer) = tokio::io::split(client);
        let sending = tokio::spawn(async move {
            let mut blocks = Client::new();
            for number in 0..MAX_STREAMS as u32 + 1 {
                writer.write_all(&blocks.syn_stream(number * 2 + 1, 0, &[])).await.unwrap();
            }
            writer
        });
        let mut held = Vec::new();
        while held.len() < MAX_STREAMS {
            held.push(session.accept().await.unwrap());
        }
        drop(sending.await.unwrap());
        let refused = reset_frame(MAX_STREAMS as u32 * 2 + 1, Reset::Refused);
        let mut seen = Vec::new();
        while !seen.ends_with(&refused) {
            seen.push(reader.read_u8().await.unwrap());
        }
    }
}
