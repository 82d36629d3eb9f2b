//! Values as columns hold them.

use std::time::{Duration, SystemTime};

use sqlx::{
    Decode, Encode, Row as _, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    sqlite::{SqliteArgumentsBuffer, SqliteRow, SqliteTypeInfo, SqliteValueRef},
};

use crate::{
    ids::{ClientId, ExchangeId, GrantId, LeaseOwner, TokenVersion, UserId},
    ports::StoreError,
    records::TokenHash,
};

/// A time as it is stored, in seconds since 1970. Earlier times become 1970: nothing is that old.
pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The time in a column.
pub(super) fn time(row: &SqliteRow, column: &str) -> sqlx::Result<SystemTime> {
    let seconds: i64 = row.try_get(column)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
}

/// The error for a record that makes no sense.
pub(super) fn damaged(error: impl Into<BoxDynError>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) {
            Self::Damaged(Box::new(error))
        } else {
            Self::Unavailable(Box::new(error))
        }
    }
}

stored_as_inner_value!(
    ClientId(String),
    ExchangeId(i64),
    GrantId(String),
    LeaseOwner(i64),
    TokenVersion(i64),
    UserId(i64),
);

impl Type<Sqlite> for TokenHash {
    fn type_info() -> SqliteTypeInfo {
        <[u8] as Type<Sqlite>>::type_info()
    }
}

impl Encode<'_, Sqlite> for TokenHash {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode(self.0.to_vec(), buffer)
    }
}

impl<'r> Decode<'r, Sqlite> for TokenHash {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        let bytes = <&[u8] as Decode<Sqlite>>::decode(value)?;
        let bytes = bytes.try_into().map_err(|_| "a hash does not have 32 bytes")?;
        Ok(Self(bytes))
    }
}
