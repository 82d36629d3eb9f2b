//! One exchange: on to the broker, and its answer back, whole or cut.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderName, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};

use super::Plan;

/// The largest request body that is passed on.
const BODY_LIMIT: usize = 16 << 20;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What ends an event (HTML standard, section 9.2.5).
const END_OF_EVENT: &[u8] = b"\n\n";

/// An answer on its way back.
type Answer = Response<Either<Full<Bytes>, Relayed>>;

/// The broker's body, with the connection that it comes from.
pub(super) struct Relayed {
    body: Incoming,
    cut: Cut,
    /// Drives the connection; it ends with the body.
    _connection: JoinSet<()>,
}

/// Whether a body ends early.
#[derive(Debug, PartialEq)]
enum Cut {
    Never,
    AfterTheFirstEvent,
    Done,
}

/// Passes a request on. What goes wrong on the way is a 502.
pub(super) async fn relay(plan: &Plan, request: Request<Incoming>) -> Result<Answer, std::convert::Infallible> {
    let (parts, body) = request.into_parts();
    let answer = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => pass_on(plan, Request::from_parts(parts, body.to_bytes())).await,
        Err(_) => None,
    };
    Ok(answer.unwrap_or_else(|| {
        let mut response = Response::new(Either::Left(Full::default()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    }))
}

async fn pass_on(plan: &Plan, mut request: Request<Bytes>) -> Option<Answer> {
    let may_be_cut = request.method() == Method::POST && plan.cut.as_deref().is_some_and(|tool| calls(&request, tool));
    let headers = request.headers_mut();
    if headers.contains_key(LAST_EVENT_ID) {
        plan.state().resumptions += 1;
    }
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    if let Some(bearer) = &plan.state().bearer
        && request.uri().path() == "/mcp"
        && !request.headers().contains_key(AUTHORIZATION)
    {
        request.headers_mut().insert(AUTHORIZATION, bearer.clone());
    }

    let stream = TcpStream::connect(plan.upstream).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let mut driver = JoinSet::new();
    driver.spawn(async {
        let _ended = connection.await;
    });
    let response = sender.send_request(request.map(Full::new)).await.ok()?;

    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONNECTION);
    parts.headers.remove(TRANSFER_ENCODING);
    let media_type = parts.headers.get(CONTENT_TYPE);
    let is_stream = media_type.is_some_and(|media_type| media_type.as_bytes().starts_with(b"text/event-stream"));
    let cut = if may_be_cut && is_stream {
        parts.headers.remove(CONTENT_LENGTH);
        plan.state().cuts += 1;
        Cut::AfterTheFirstEvent
    } else {
        Cut::Never
    };
    let relayed = Relayed {
        body,
        cut,
        _connection: driver,
    };
    Some(Response::from_parts(parts, Either::Right(relayed)))
}

fn calls(request: &Request<Bytes>, tool: &str) -> bool {
    let message: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    message["method"] == "tools/call" && message["params"]["name"] == tool
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.cut == Cut::Done {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if self.cut == Cut::Never {
            return Poll::Ready(frame);
        }
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_data() {
                Ok(mut data) => {
                    // The broker writes an event at once, so that its end is not torn in two.
                    if let Some(end) = data.windows(END_OF_EVENT.len()).position(|bytes| bytes == END_OF_EVENT) {
                        data.truncate(end + END_OF_EVENT.len());
                        self.cut = Cut::Done;
                    }
                    Frame::data(data)
                }
                Err(other) => other,
            })
        }))
    }

    fn size_hint(&self) -> SizeHint {
        match self.cut {
            Cut::Never => self.body.size_hint(),
            Cut::AfterTheFirstEvent | Cut::Done => SizeHint::default(),
        }
    }
}
