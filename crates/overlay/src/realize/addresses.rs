//! The node's address book on disk: `<data_dir>/net/addresses.json`, replaced whole, on disk before it counts.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::RealizeError;
use crate::ipam::{Addresses, FORMAT};

/// See the file's header.
#[derive(Debug)]
pub struct AddressBook {
    path: PathBuf,
    addresses: Addresses,
}

impl AddressBook {
    /// Reads the book, or starts an empty one.
    pub fn open(data_dir: &Path) -> Result<Self, RealizeError> {
        let folder = data_dir.join("net");
        fs::create_dir_all(&folder).map_err(|source| RealizeError::Folder { path: folder.clone(), source })?;
        let path = folder.join("addresses.json");
        let failed = |source| RealizeError::AddressBook { path: path.clone(), source };
        let addresses = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Addresses>(&bytes).map_err(|error| failed(error.into()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Addresses::default(),
            Err(error) => return Err(failed(error)),
        };
        if addresses.format() != FORMAT {
            let message = format!("its format is {}, this build knows {FORMAT}", addresses.format());
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        Ok(Self { path, addresses })
    }

    /// Changes the book. What `change` did is undone if it returns an error or cannot be kept.
    pub fn update<T, E: Into<RealizeError>>(
        &mut self,
        change: impl FnOnce(&mut Addresses) -> Result<T, E>,
    ) -> Result<T, RealizeError> {
        let mut changed = self.addresses.clone();
        let value = change(&mut changed).map_err(Into::into)?;
        if changed != self.addresses {
            self.write(&changed).map_err(|source| RealizeError::AddressBook { path: self.path.clone(), source })?;
            self.addresses = changed;
        }
        Ok(value)
    }

    /// Removes the book.
    pub fn remove(&mut self) -> Result<(), RealizeError> {
        self.addresses = Addresses::default();
        match fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RealizeError::AddressBook { path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    fn write(&self, addresses: &Addresses) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file = fs::File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(addresses)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.path)?;
        fs::File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }
}
