//! A connection as any stream of bytes.

use std::future::{Future, ready};
use std::io;
use std::net::Shutdown;

use super::{Stream, receive};
use crate::buf::{BufError, BufResult, IoBuf, IoBufMut, IoVectored, PooledBuf};
use crate::io::{AsyncRead, AsyncWrite};

impl<F> AsyncRead for Stream<F> {
    fn recv(&self) -> impl Future<Output = io::Result<Option<PooledBuf>>> {
        Stream::recv(self)
    }

    fn read<B: IoBufMut>(&self, buf: B) -> impl Future<Output = BufResult<usize, B>> {
        Stream::read(self, buf)
    }

    fn unread(&self, bytes: PooledBuf) {
        receive::unread(&self.fd, bytes);
    }
}

impl<F> AsyncWrite for Stream<F> {
    fn write_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = Result<B, BufError<B>>> {
        Stream::write_all(self, buf)
    }

    fn write_all_vectored<V: IoVectored>(
        &self,
        bufs: V,
    ) -> impl Future<Output = Result<V, BufError<V>>> {
        Stream::write_all_vectored(self, bufs)
    }

    fn shutdown(&self) -> impl Future<Output = io::Result<()>> {
        ready(Stream::shutdown(self, Shutdown::Write))
    }
}
