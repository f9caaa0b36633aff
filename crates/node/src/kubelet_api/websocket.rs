//! Conversations over the channels of one WebSocket: 0 input, 1 output, 2 errors, 3 the outcome, 4 the terminal's size.
//!
//! As upstream: k8s.io/apimachinery/pkg/util/remotecommand (v4 and v5 of `channel.k8s.io`).

use super::remote_command::{Client, Input, Output};
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;

/// Subprotocols, best first.
pub(super) const PROTOCOLS: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// v5: the client closes a channel.
const CLOSE: u8 = 255;

/// Carries a conversation until one side ends it.
pub(super) async fn carry(socket: WebSocket, client: Client) {
    let (sink, mut source) = socket.split();
    let Client { input, output } = client;
    let receiving = async {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => receive(bytes, &input).await,
                Message::Close(_) => return,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    };
    tokio::select! {
        () = send(sink, output) => {}
        // The client has gone: dropping its side of the conversation ends the process.
        () = receiving => {}
    }
}

async fn receive(mut bytes: Bytes, input: &mpsc::Sender<Input>) {
    if bytes.is_empty() {
        return;
    }
    let channel = bytes.split_to(1)[0];
    let message = match (channel, bytes.first()) {
        (0, _) => Input::Stdin(bytes),
        (4, _) => Input::Resize(bytes),
        (CLOSE, Some(0)) => Input::StdinEnd,
        _ => return,
    };
    // The process may have ended meanwhile.
    let _ended = input.send(message).await;
}

async fn send(mut sink: SplitSink<WebSocket, Message>, mut output: mpsc::Receiver<Output>) {
    while let Some(message) = output.recv().await {
        let (channel, bytes) = match &message {
            Output::Stdout(bytes) => (1, &bytes[..]),
            Output::Stderr(bytes) => (2, &bytes[..]),
            Output::Outcome(status) => (3, status.as_bytes()),
        };
        let message = [&[channel], bytes].concat();
        if sink.send(Message::Binary(message.into())).await.is_err() {
            return;
        }
    }
    close(sink).await;
}

/// Ends a WebSocket in good order.
pub(super) async fn close(mut sink: SplitSink<WebSocket, Message>) {
    // The other side may have closed first.
    let normal = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let _closed = sink.send(Message::Close(Some(normal))).await;
}
