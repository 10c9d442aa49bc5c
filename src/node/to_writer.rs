//! A fetch whose bytes go to a writer, in their order.

use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::Instant;

use crate::client::{Canceller, DownloadEnd, Failed, FetchError, FoundFile, Phase, Resolved};
use crate::node::fetch_job::{FetchJob, FetchWriter};
use crate::node::limits::{TO_WRITER_LEN, TO_WRITER_TELL_EVERY};
use crate::node::open_files::OpenFiles;
use crate::node::open_reader::OpenReader;

/// A file on its way to a writer.
struct Pour<'w> {
    writer: &'w mut FetchWriter,
    /// Bytes that the writer has taken.
    done: u64,
    buffer: Vec<u8>,
}

impl FetchJob {
    /// Passes the one file that was found to `writer`.
    pub(super) fn pour(&self, found: Resolved, (mut writer, open_files): (FetchWriter, Arc<OpenFiles>)) -> DownloadEnd {
        let Resolved { mut files, failed, .. } = found;
        let (count, file) = (files.len() + failed.len(), files.pop());
        let Some(file) = file.filter(|_| count == 1) else {
            return match count {
                1 => self.all_failed(failed),
                files => self.failed(FetchError::NotOneFile { what: self.state.what.clone(), files }, failed),
            };
        };
        self.state.found(0, file.id.len);
        let mut pour = Pour { writer: &mut writer, done: 0, buffer: vec![0; TO_WRITER_LEN] };
        match self.pour_all(&file, &open_files, &mut pour) {
            Ok(()) => {
                self.state.stats.complete(file.id.len);
                DownloadEnd { report: self.state.report(Vec::new()), error: None }
            }
            Err(error) => DownloadEnd { report: self.state.report(Vec::new()), error: Some(error) },
        }
    }

    /// A pause lets go of the file; after it the next bytes are read on.
    fn pour_all(
        &self,
        file: &FoundFile,
        open_files: &Arc<OpenFiles>,
        pour: &mut Pour<'_>,
    ) -> Result<(), Arc<FetchError>> {
        loop {
            if let Some(error) = self.rest() {
                return Err(error.into());
            }
            self.state.enter(Phase::Fetching);
            let canceller = Canceller::new();
            let _interrupts = self.state.interrupts(&canceller);
            let opened = open_files.open(file.clone(), self.options.clone(), self.state.stats.clone())?;
            let mut reader = OpenReader::new(open_files.clone(), opened, canceller);
            match self.pour_from(&mut reader, pour) {
                Err(error) if matches!(*error, FetchError::Cancelled) && self.state.is_paused() => {}
                end => return end,
            }
        }
    }

    fn pour_from(&self, reader: &mut OpenReader, pour: &mut Pour<'_>) -> Result<(), Arc<FetchError>> {
        let mut told = Instant::now();
        reader.seek(SeekFrom::Start(pour.done)).map_err(|e| Arc::new(FetchError::Writer(e)))?;
        loop {
            let len = reader.read(&mut pour.buffer).map_err(|e| match e.downcast::<Failed>() {
                Ok(failed) => failed.error,
                Err(e) => Arc::new(FetchError::Writer(e)),
            })?;
            let written = match len {
                0 => pour.writer.0.flush(),
                len => pour.writer.0.write_all(&pour.buffer[..len]),
            };
            written.map_err(|e| Arc::new(FetchError::Writer(e)))?;
            if len == 0 {
                return Ok(());
            }
            pour.done += len as u64;
            if told.elapsed() >= TO_WRITER_TELL_EVERY {
                self.state.tell();
                told = Instant::now();
            }
        }
    }
}
