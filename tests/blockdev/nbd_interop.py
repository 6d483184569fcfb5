"""libnbd against the NBD server: commands and errors no other client sends. Argument: a URI."""

import errno
import sys

import nbd


def refuses(code, call, *arguments, **keywords):
    try:
        call(*arguments, **keywords)
    except nbd.Error as error:
        assert error.errnum == code, f"{call.__name__}: {error}"
        return
    raise AssertionError(f"{call.__name__}{arguments} succeeded")


def connect(uri, contexts=True):
    handle = nbd.NBD()
    handle.set_strict_mode(0)  # what libnbd would refuse by itself is for the server to refuse
    if contexts:
        handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.connect_uri(uri)
    return handle


def extents(handle, length, offset, flags=0):
    found = []

    def take(context, at, entries, error):
        assert context == "base:allocation"
        found.extend(zip(entries[::2], entries[1::2]))

    handle.block_status(length, offset, take, flags)
    return found


def main(uri):
    h = connect(uri)
    size = h.get_size()
    h.zero(size, 0)
    assert extents(h, size, 0) == [(size, 3)]
    h.pwrite(b"x" * 4096, 8192, nbd.CMD_FLAG_FUA)
    assert extents(h, size, 0) == [(8192, 3), (4096, 0), (size - 12288, 3)]
    assert extents(h, size, 0, nbd.CMD_FLAG_REQ_ONE) == [(8192, 3)]
    h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE)
    assert extents(h, size, 0)[1] == (4096, 0)
    h.zero(4096, 8192, nbd.CMD_FLAG_FAST_ZERO)
    assert extents(h, size, 0) == [(size, 3)]
    refuses(errno.ENOTSUP, h.zero, 4096, 0, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_NO_HOLE)
    h.cache(size, 0)
    h.trim(size, 0)
    h.flush()

    chunks = []
    h.pread_structured(5000, 3, lambda data, at, kind, error: chunks.append((at, len(data))),
                       nbd.CMD_FLAG_DF)
    assert chunks == [(3, 5000)], chunks

    refuses(errno.EINVAL, h.pread, 1, size)
    refuses(errno.ENOSPC, h.pwrite, b"x", size)
    refuses(errno.EINVAL, h.trim, 2, size - 1)
    refuses(errno.ENOSPC, h.zero, 2, size - 1)
    refuses(errno.EINVAL, h.cache, 2, size - 1)
    refuses(errno.EINVAL, h.block_status, 0, 0, lambda *_: None)
    refuses(errno.EINVAL, h.pwrite, b"x", 0, 1 << 14)
    assert h.pread(3, 8190) == b"\0\0\0"

    # Two connections: what one has written and flushed the other one reads.
    other = connect(uri)
    h.pwrite(b"shared", 77777)
    other.flush()
    assert other.pread(6, 77777) == b"shared"
    other.shutdown()

    plain = connect(uri, contexts=False)
    refuses(errno.EINVAL, plain.block_status, 4096, 0, lambda *_: None)
    simple = nbd.NBD()
    simple.set_request_structured_replies(False)
    simple.connect_uri(uri)
    assert not simple.get_structured_replies_negotiated()
    assert simple.pread(6, 77777) == b"shared"
    refuses(errno.ENOSPC, simple.pwrite, b"x" * 10, size - 1)

    # Old clients: the export by name, without GO.
    old = nbd.NBD()
    old.set_opt_mode(True)
    old.connect_unix(uri.split("socket=")[1])
    assert old.get_protocol() == "newstyle-fixed"
    names = []
    old.opt_list(lambda name, description: names.append(name))
    assert "small" in names, names
    contexts = []
    old.set_export_name("small")
    old.opt_list_meta_context(contexts.append)
    assert contexts == ["base:allocation"], contexts
    old.opt_abort()
    print("libnbd: ok")


main(sys.argv[1])
