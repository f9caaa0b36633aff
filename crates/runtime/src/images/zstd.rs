//! Reads zstd files of several frames: layers that can be fetched in parts, or were compressed in parallel, have many.

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

/// The uncompressed bytes of all frames, one after the other.
pub(super) struct Frames<R> {
    source: R,
    decoder: FrameDecoder,
    within_a_frame: bool,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(source: R) -> Self {
        Frames { source, decoder: FrameDecoder::new(), within_a_frame: false }
    }

    /// Goes to the beginning of the next frame that holds data; whether there is one.
    fn next(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut self.source.by_ref().take(length.into()), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within_a_frame {
                self.within_a_frame = self.next()?;
                if !self.within_a_frame {
                    return Ok(0);
                }
            }
            while self.decoder.can_collect() < buffer.len() && !self.decoder.is_finished() {
                let missing = buffer.len() - self.decoder.can_collect();
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBytes(missing))
                    .map_err(io::Error::other)?;
            }
            match self.decoder.read(buffer)? {
                0 => self.within_a_frame = false,
                length => return Ok(length),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        Frames::new(bytes).read_to_end(&mut text).map(|_| text)
    }

    #[test]
    fn all_frames_are_read_and_those_without_data_are_skipped() {
        let one = compress_to_vec(&b"one "[..], CompressionLevel::Fastest);
        let two = compress_to_vec(&[b'2'; 300_000][..], CompressionLevel::Fastest);
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let file = [&one[..], &skipped, &two, &skipped].concat();
        assert_eq!(unpacked(&file).unwrap(), [b"one ".to_vec(), vec![b'2'; 300_000]].concat());
    }

    #[test]
    fn a_broken_file_is_an_error() {
        let one = compress_to_vec(&b"one"[..], CompressionLevel::Fastest);
        assert!(unpacked(&one[..one.len() - 1]).is_err());
        assert!(unpacked(&[&one[..], b"rest"].concat()).is_err());
    }
}
