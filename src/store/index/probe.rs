//! Records of the index as bytes, for the fuzz targets.

use crate::content::Digest;
use crate::store::index::Indexed;
use crate::store::index::tables::{decode, encode, layer_record, layer_value};

impl Indexed {
    /// Reads the record of a file; `None` if it is damaged.
    pub fn from_record(bytes: &[u8]) -> Option<Self> {
        decode(bytes)
    }

    /// The record of a file.
    pub fn to_record(&self) -> [u8; 64] {
        encode(self)
    }

    /// Reads a record of a layer; `None` if it is damaged.
    pub fn layer_from_record(bytes: &[u8]) -> Option<Vec<Digest>> {
        layer_record(bytes).map(|digests| digests.iter().map(|digest| Digest(*digest)).collect())
    }

    /// A record of a layer.
    pub fn layer_to_record(digests: &[Digest]) -> Vec<u8> {
        layer_value(digests)
    }
}
