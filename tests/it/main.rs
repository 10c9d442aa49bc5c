
mod server;
