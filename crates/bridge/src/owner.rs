//! What a conversation needs from its owner, who has the servers.

use std::fmt;

/// The owner of a conversation: it starts servers, and keeps the snapshot.
///
/// All methods return at once. They are called without a lock of the conversation, from any task,
/// and may call the conversation. A call may come twice, or when it is no longer true.
pub trait Owner: fmt::Debug + Send + Sync + 'static {
    /// A call waits for a link that is newer than `after`. The owner answers with
    /// [`Conversation::attach`](crate::Conversation::attach) or
    /// [`Conversation::refuse`](crate::Conversation::refuse).
    fn want(&self, after: u64);

    /// The [`revision`](crate::Conversation::revision) has grown, or the conversation has become
    /// blank ([`is_blank`](crate::Conversation::is_blank)).
    fn changed(&self);

    /// A call or a question has ended, which counts as activity of the client.
    fn touch(&self);
}
