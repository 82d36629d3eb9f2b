//! An HTTP/1.1 connection whose request is written by hand: its body may come late or never.

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{Harness, WAIT_LIMIT};

/// A connection to the broker.
#[derive(Debug)]
pub(crate) struct RawConnection {
    address: String,
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl RawConnection {
    pub(crate) async fn open(harness: &Harness) -> Self {
        let address = harness.broker.url().strip_prefix("http://").unwrap().to_owned();
        let (read, write) = TcpStream::connect(&address).await.unwrap().into_split();
        Self {
            address,
            lines: BufReader::new(read).lines(),
            write,
        }
    }

    /// Sends the head of a `POST /mcp` with a JSON body of `length` bytes. `headers` are further
    /// lines, each with its line end.
    pub(crate) async fn send_head(&mut self, token: &str, headers: &str, length: usize) {
        let address = &self.address;
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{headers}\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        self.send(&head).await;
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.write.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next line of the response; empty at the end of a head and at the end of the connection.
    pub(crate) async fn next_line(&mut self) -> String {
        let line = timeout(WAIT_LIMIT, self.lines.next_line())
            .await
            .expect("the broker responds");
        line.unwrap().unwrap_or_default()
    }
}
