//! The files of one log as a reader sees them: opened in one consistent moment, the oldest
//! first, each decoded record by record.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Take};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use flate2::bufread::MultiGzDecoder;
use fs_err::File;

use super::rotate::numbered;
use super::writer::record_before;
use super::{LogLine, json, local};
use crate::config::LogDriver;
use crate::protocol::LogMark;

/// One file of a log.
#[derive(Debug)]
pub(super) struct LogFile {
    content: Content,
    /// The inode number that the file has, or had before it was compressed.
    pub(super) identity: Option<u64>,
    /// Bytes that belong to the log; more than there are means as many as there will be.
    limit: u64,
    pub(super) modified: Option<SystemTime>,
}

#[derive(Debug)]
enum Content {
    Plain(File),
    Gzip(Box<MultiGzDecoder<BufReader<File>>>),
}

impl LogFile {
    fn open(path: &Path, gzip: bool) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let metadata = file.metadata()?;
        let modified = metadata.modified().ok();
        let (content, identity) = if gzip {
            let decoder = MultiGzDecoder::new(BufReader::new(file));
            let comment = decoder.header().and_then(|header| header.comment());
            let identity = comment.and_then(|text| str::from_utf8(text).ok()?.parse().ok());
            (Content::Gzip(Box::new(decoder)), identity)
        } else {
            (Content::Plain(file), Some(metadata.ino()))
        };
        Ok(Some(Self { content, identity, limit: u64::MAX, modified }))
    }

    /// The `number`th file behind `path`, 0 being the current one, plain or compressed.
    fn numbered(path: &Path, number: u32) -> io::Result<Option<Self>> {
        if number == 0 {
            return Self::open(path, false);
        }
        match Self::open(&numbered(path, number, false), false)? {
            Some(file) => Ok(Some(file)),
            None => Self::open(&numbered(path, number, true), true),
        }
    }

    /// The file's records from its start.
    pub(super) fn records(self, driver: LogDriver) -> io::Result<Records> {
        self.records_from(driver, 0)
    }

    fn records_from(self, driver: LogDriver, start: u64) -> io::Result<Records> {
        let input = match self.content {
            Content::Gzip(decoder) => Input::Gzip(BufReader::new(decoder)),
            Content::Plain(mut file) => {
                file.seek(SeekFrom::Start(start))?;
                let rest = file.take(self.limit.saturating_sub(start));
                Input::Plain(BufReader::with_capacity(32 << 10, rest))
            }
        };
        Ok(Records { input, driver, partial: Vec::new(), identity: self.identity })
    }

    /// Where the last `wanted` records start and how many they are, at most `wanted`. `None`
    /// for a compressed file, which cannot be read backwards.
    fn tail_start(&self, driver: LogDriver, wanted: usize) -> io::Result<Option<(u64, usize)>> {
        let Content::Plain(file) = &self.content else { return Ok(None) };
        let end = file.metadata()?.len().min(self.limit);
        if wanted == 0 {
            return Ok(Some((end, 0)));
        }
        if driver == LogDriver::Local {
            let (mut start, mut found) = (end, 0);
            while found < wanted && start > 0 {
                match record_before(file.file(), start)? {
                    Some(previous) => start = previous,
                    // Behind damage nothing can be found backwards.
                    None => break,
                }
                found += 1;
            }
            return Ok(Some((start, found)));
        }
        let mut block = vec![0; 32 << 10];
        let (mut position, mut found) = (end, 0);
        while position > 0 {
            let length = position.min(block.len() as u64);
            position -= length;
            let part = &mut block[..usize::try_from(length).unwrap_or(0)];
            file.file().read_exact_at(part, position)?;
            for (index, _) in part.iter().enumerate().rev().filter(|&(_, &byte)| byte == b'\n') {
                let after = position + index as u64 + 1;
                // The newline at the very end ends the last record and starts none.
                if after == end {
                    continue;
                }
                found += 1;
                if found == wanted {
                    return Ok(Some((after, found)));
                }
            }
        }
        // The first record starts without a newline before it.
        Ok(Some((0, found + usize::from(end > 0))))
    }
}

/// All files of the log at `path`, the oldest first, none twice and none left out, even if the
/// writer replaces them meanwhile.
pub(super) fn open_all(path: &Path) -> io::Result<Vec<LogFile>> {
    loop {
        let mut files: VecDeque<LogFile> = VecDeque::new();
        let mut gaps = 0;
        for number in 0.. {
            match LogFile::numbered(path, number)? {
                // The writer renames the oldest first, so one may be met twice but none missed.
                Some(file)
                    if file.identity.is_some()
                        && files.front().is_some_and(|last| last.identity == file.identity) => {}
                Some(file) => files.push_front(file),
                // While it renames, one number is free.
                None if gaps == 0 => gaps += 1,
                None => break,
            }
        }
        let current = files.back().and_then(|file| file.identity);
        let now = inode(path)?;
        if now.is_none() || now == current {
            return Ok(files.into());
        }
    }
}

/// The inode number of the current file.
pub(super) fn inode(path: &Path) -> io::Result<Option<u64>> {
    match fs_err::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Leaves of `files` what lies before `mark`.
pub(super) fn limit(files: &mut Vec<LogFile>, mark: LogMark) {
    let position = files.iter().position(|file| file.identity == Some(mark.inode));
    if let Some(position) = position {
        files.truncate(position + 1);
        files[position].limit = mark.offset;
    }
}

/// A stretch of a log.
#[derive(Debug)]
pub(super) enum Part {
    /// Records that had to be decoded to be counted.
    Lines(VecDeque<LogLine>),
    /// Records to be read.
    Records(Records),
}

/// The last `wanted` records of `files`. The last part is always the newest file, to go on with.
pub(super) fn tail(
    files: Vec<LogFile>,
    driver: LogDriver,
    wanted: usize,
) -> io::Result<VecDeque<Part>> {
    let mut parts = VecDeque::new();
    let mut missing = wanted;
    for file in files.into_iter().rev() {
        if missing == 0 && !parts.is_empty() {
            break;
        }
        let Some((start, found)) = file.tail_start(driver, missing)? else {
            let mut last = VecDeque::new();
            let mut records = file.records(driver)?;
            while let Some(line) = records.next()? {
                if last.len() == missing {
                    last.pop_front();
                }
                last.push_back(line);
            }
            missing -= last.len();
            parts.push_front(Part::Lines(last));
            continue;
        };
        missing -= found;
        parts.push_front(Part::Records(file.records_from(driver, start)?));
    }
    Ok(parts)
}

/// Decodes one file.
#[derive(Debug)]
pub(super) struct Records {
    input: Input,
    driver: LogDriver,
    /// What has been read of a record that is not complete yet.
    partial: Vec<u8>,
    pub(super) identity: Option<u64>,
}

#[derive(Debug)]
enum Input {
    Plain(BufReader<Take<File>>),
    Gzip(BufReader<Box<MultiGzDecoder<BufReader<File>>>>),
}

impl Records {
    /// The next record that can be understood. `None` at the end; a file that grows may have
    /// more later.
    pub(super) fn next(&mut self) -> io::Result<Option<LogLine>> {
        let result = match &mut self.input {
            Input::Plain(input) => next(self.driver, input, &mut self.partial),
            Input::Gzip(input) => next(self.driver, input, &mut self.partial),
        };
        match (result, &self.input) {
            // A compressed file that a power cut shortened ends early.
            (Err(error), Input::Gzip(_))
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::InvalidData
                ) =>
            {
                Ok(None)
            }
            (result, _) => result,
        }
    }
}

fn next(
    driver: LogDriver,
    input: &mut impl BufRead,
    partial: &mut Vec<u8>,
) -> io::Result<Option<LogLine>> {
    if driver == LogDriver::Local { next_local(input, partial) } else { next_json(input, partial) }
}

fn next_json(input: &mut impl BufRead, partial: &mut Vec<u8>) -> io::Result<Option<LogLine>> {
    loop {
        let room = MAX_RECORD.saturating_sub(partial.len()) as u64;
        input.take(room).read_until(b'\n', partial)?;
        if partial.last() != Some(&b'\n') {
            if partial.len() < MAX_RECORD {
                return Ok(None);
            }
            // Too long to be a record: go on behind it.
            partial.clear();
            continue;
        }
        let line = json::decode(&partial[..partial.len() - 1]);
        partial.clear();
        if line.is_some() {
            return Ok(line);
        }
    }
}

fn next_local(input: &mut impl BufRead, partial: &mut Vec<u8>) -> io::Result<Option<LogLine>> {
    for _ in 0..2 {
        // Without a length the first four bytes; with a damaged one nothing more.
        let whole = match local::body_length(partial) {
            Some(body) => body + local::AROUND,
            None if partial.len() < 4 => 4,
            None => return Ok(None),
        };
        let room = whole.saturating_sub(partial.len()) as u64;
        input.take(room).read_to_end(partial)?;
    }
    let Some((line, length)) = local::decode(partial) else { return Ok(None) };
    partial.drain(..length);
    Ok(Some(line))
}

/// No record of a JSON file is longer: 16 KiB of line can be six times that, and attributes.
const MAX_RECORD: usize = 4 << 20;
