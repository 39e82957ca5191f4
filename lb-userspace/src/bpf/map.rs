//! A map of the schema, by its descriptor and layout: elements and batches as
//! bytes, sizes checked here so that the calls below are safe.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use super::sys::{self, BatchBuffers, Cursor, ElemOp, MapInfo};

/// Elements a batch at most. The kernel needs no more than the buffers that the
/// caller holds; this bounds those, and how long a call runs.
const BATCH: usize = 16_384;

/// An open map.
#[derive(Debug)]
pub(super) struct BpfMap {
    fd: OwnedFd,
    info: MapInfo,
    value_bytes: usize,
}

/// How far a batch came, and why it went no further.
#[derive(Debug)]
pub struct WriteError {
    /// Elements that were written; the next one failed.
    pub done: usize,
    /// Why it failed.
    pub error: io::Error,
}

/// Keys and values, end to end, in no order.
#[derive(Debug, Default)]
pub struct Entries {
    /// Keys.
    pub keys: Vec<u8>,
    /// Values.
    pub values: Vec<u8>,
}

impl BpfMap {
    /// Takes an open map over; asks the kernel for its layout.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = sys::map_info(fd.as_fd())?;
        let value_bytes = match per_cpu(info.kind) {
            // Each CPU's value is padded to 8 bytes (bpf_map_value_size).
            true => info.value_size.next_multiple_of(8) as usize * possible_cpus()?,
            false => info.value_size as usize,
        };
        Ok(Self {
            fd,
            info,
            value_bytes,
        })
    }

    /// A second descriptor of the same map.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            info: self.info,
            value_bytes: self.value_bytes,
        })
    }

    /// Its layout, as the kernel knows it.
    pub(super) fn info(&self) -> &MapInfo {
        &self.info
    }

    /// Its descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes that one element's value takes in a call: of all CPUs, if per-CPU.
    pub(super) fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// Copies a value out; `None` if there is no such key.
    pub(super) fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check_key(key)?;
        let mut value = vec![0; self.value_bytes];
        // SAFETY: the key has the map's size, the value what the kernel copies.
        let result = unsafe { sys::elem(self.fd(), ElemOp::Lookup, key, value.as_mut_ptr(), 0) };
        match result {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes one element.
    pub(super) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.write(key, value, 0)
    }

    /// Writes one element as `flags` allow: 0, or [`sys::NOEXIST`].
    pub(super) fn write(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        self.check_key(key)?;
        if value.len() != self.value_bytes {
            return Err(wrong_size());
        }
        // SAFETY: key and value have the map's sizes; an update does not write to `value`.
        unsafe {
            sys::elem(
                self.fd(),
                ElemOp::Update,
                key,
                value.as_ptr().cast_mut(),
                flags,
            )
        }
    }

    /// Writes elements in order, in as few calls as it takes.
    pub(super) fn update_batch(&self, keys: &[u8], values: &[u8]) -> Result<(), WriteError> {
        let key_size = self.info.key_size as usize;
        let count = keys.len() / key_size;
        if !keys.len().is_multiple_of(key_size) || values.len() != count * self.value_bytes {
            return Err(WriteError {
                done: 0,
                error: wrong_size(),
            });
        }
        let mut done = 0;
        while done < count {
            let mut buffers = BatchBuffers {
                keys: keys[done * key_size..].as_ptr().cast_mut(),
                values: values[done * self.value_bytes..].as_ptr().cast_mut(),
                count: (count - done).min(BATCH) as u32,
            };
            // SAFETY: the slices hold `count` elements from `done` on (checked
            // above), and a batch that writes to the map only reads from them.
            let result = unsafe { sys::write_batch(self.fd(), ElemOp::Update, &mut buffers) };
            done += buffers.count as usize;
            result.map_err(|error| WriteError { done, error })?;
        }
        Ok(())
    }

    /// Removes elements. One that is not there counts as removed.
    pub(super) fn delete_batch(&self, keys: &[u8]) -> Result<(), WriteError> {
        let key_size = self.info.key_size as usize;
        let count = keys.len() / key_size;
        if !keys.len().is_multiple_of(key_size) {
            return Err(WriteError {
                done: 0,
                error: wrong_size(),
            });
        }
        let mut done = 0;
        while done < count {
            let mut buffers = BatchBuffers {
                keys: keys[done * key_size..].as_ptr().cast_mut(),
                values: std::ptr::null_mut(),
                count: (count - done).min(BATCH) as u32,
            };
            // SAFETY: the slice holds `count` keys from `done` on; a deletion
            // reads no values and writes to neither.
            let result = unsafe { sys::write_batch(self.fd(), ElemOp::Delete, &mut buffers) };
            done += buffers.count as usize;
            match result {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => done += 1,
                Err(error) => return Err(WriteError { done, error }),
            }
        }
        Ok(())
    }

    /// Reads the next elements, `limit` at most, from `cursor` on; appends them
    /// to `entries`. Returns whether this was the end. In a hash that changes
    /// meanwhile, every element that stays there is read.
    ///
    /// # Errors
    /// `ENOSPC`: a bucket of the hash holds more than `limit` elements.
    pub(super) fn read_some(
        &self,
        cursor: &mut Option<Cursor>,
        limit: usize,
        entries: &mut Entries,
    ) -> io::Result<bool> {
        let key_size = self.info.key_size as usize;
        let (keys, values) = (entries.keys.len(), entries.values.len());
        entries.keys.resize(keys + limit * key_size, 0);
        entries.values.resize(values + limit * self.value_bytes, 0);
        let mut buffers = BatchBuffers {
            keys: entries.keys[keys..].as_mut_ptr(),
            values: entries.values[values..].as_mut_ptr(),
            count: limit as u32,
        };
        // SAFETY: both buffers were just extended by `limit` elements.
        let result = unsafe { sys::read_batch(self.fd(), cursor, &mut buffers) };
        let read = if result.is_ok() {
            buffers.count as usize
        } else {
            0
        };
        entries.keys.truncate(keys + read * key_size);
        entries.values.truncate(values + read * self.value_bytes);
        result
    }

    /// Reads every element.
    pub(super) fn read_all(&self) -> io::Result<Entries> {
        let mut entries = Entries::default();
        let mut cursor = None;
        let mut limit = BATCH.min(self.info.max_entries as usize).max(1);
        loop {
            match self.read_some(&mut cursor, limit, &mut entries) {
                Ok(true) => return Ok(entries),
                Ok(false) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => limit *= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes of kernel memory that the map holds, by its `fdinfo`.
    pub(super) fn memory(&self) -> io::Result<u64> {
        use std::os::fd::AsRawFd as _;
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()))?;
        Ok(memlock(&text).unwrap_or(0))
    }

    fn check_key(&self, key: &[u8]) -> io::Result<()> {
        if key.len() == self.info.key_size as usize {
            Ok(())
        } else {
            Err(wrong_size())
        }
    }
}

fn memlock(fdinfo: &str) -> Option<u64> {
    fdinfo
        .lines()
        .find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

fn wrong_size() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

// Values of `enum bpf_map_type` that hold a value for each CPU:
// PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH.
fn per_cpu(kind: u32) -> bool {
    matches!(kind, 5 | 6 | 10)
}

/// CPUs that the kernel may ever bring up: values of a per-CPU map.
pub(super) fn possible_cpus() -> io::Result<usize> {
    aya::util::nr_cpus().map_err(|(_, error)| error)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_memory_of_a_map_is_its_memlock_line() {
        let text = "pos:\t0\nflags:\t02\nmap_type:\t1\nmemlock:\t41943040\nmap_id:\t7\n";
        assert_eq!(super::memlock(text), Some(41_943_040));
        assert_eq!(super::memlock("map_type:\t1\n"), None);
    }
}
