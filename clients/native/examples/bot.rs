// SPDX-License-Identifier: MIT OR Apache-2.0
//! A bot: `make run`, then `./target/debug/examples/bot`, then write to @bot. PLI_SERVER and PLI_BOT name another server
//! and handle. It answers each message once, however often it is killed.
#![allow(clippy::print_stdout, reason = "a program for a terminal")]
use std::env::{args, var};

use pli_client::{Client, Message, RequestError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    anyhow::ensure!(args().len() == 1, "no arguments: PLI_SERVER=HOST:PORT and PLI_BOT=HANDLE say where and who it is");
    let server = var("PLI_SERVER").unwrap_or("127.0.0.1:7480".into());
    let name = var("PLI_BOT").unwrap_or("bot".into());
    let (client, events) = Client::builder(server, &name).connect().await?;
    client.tell_status(|status| println!("{status}"));
    client.online().await.ok();
    println!("write to @{name}: help, dice, reverse TEXT, or anything else");
    let mut messages = client.messages(events).await?;
    while let Some(message) = messages.next().await {
        match message.reply(answer(&message)).await {
            Err(RequestError::Command(why)) => {
                println!("no answer to {}: {why}", message.from);
                message.done().await?;
            }
            other => drop(other?),
        }
    }
    Err(client.end().await.into())
}

fn answer(message: &Message) -> String {
    match message.text.split_once(' ').unwrap_or((message.text.as_str(), "")) {
        ("help", _) => "dice throws one, reverse TEXT turns it around, anything else comes back".into(),
        ("dice", _) => format!("{}", rand::random_range(1..=6)),
        ("reverse", text) => text.chars().rev().collect(),
        _ => format!("{} said: {}", message.from, message.text),
    }
}
