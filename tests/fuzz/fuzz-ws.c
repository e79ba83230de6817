/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * First byte, highest bit set: the codec alone, fed with the input in pieces. Else a WebSocket over a
 * socketpair: the input is a program of what the peer, the handler and we do. Messages are within their
 * limits and text is text, whatever comes; what goes out are frames of RFC 6455, none behind a Close; the
 * end is told once; nothing is held afterwards.
 */

#include <string.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/ws.h"
#include "tests/fuzz/fuzz.h"

enum {
        ECHO = 1 << 0,
        HOLD = 1 << 1,  /* with each message */
        CLOSE = 1 << 2, /* at the third message */
        CODEC = 1 << 7,
};

typedef struct Peer {
        sd_event *event;
        WsConn *w;
        int fd;
        uint8_t flags;
        unsigned n_messages, n_closed, n_freed;
        size_t buffered;

        /* the frame that is read of ours */
        uint8_t header[10];
        size_t n_header;
        uint64_t left;
        bool closed;
} Peer;

static void on_message(WsConn *w, bool text, const void *data, size_t n, void *userdata) {
        Peer *p = userdata;

        assert(p->n_closed == 0);
        assert(n <= WS_MESSAGE_MAX);
        assert(!text || utf8_is_valid(data, n));
        p->n_messages++;
        if (p->flags & ECHO)
                (void) ws_send(w, text, data, n);
        if (p->flags & HOLD)
                ws_hold(w, true);
        if ((p->flags & CLOSE) && p->n_messages == 3)
                ws_close(w, 4000, "enough");
}

static void on_writable(WsConn *w, void *userdata) {
        assert(ws_room(w) >= WS_QUEUE_BYTES_MAX / 2);
}

static void on_closed(WsConn *w, unsigned code, void *userdata) {
        ((Peer *) userdata)->n_closed++;
        assert(ws_send(w, false, "x", 1) == -ESHUTDOWN);
}

static void on_freed(void *userdata) {
        Peer *p = userdata;

        p->n_freed++;
        p->w = NULL;
}

/* Bytes of the frame's header, once its second one is known. */
static size_t header_length(const Peer *p) {
        uint8_t n = p->header[1];

        return p->n_header < 2 || n < 126 ? 2 : n == 126 ? 4 : 10;
}

static void begin_frame(Peer *p) {
        uint8_t opcode = p->header[0] & 15;

        assert((p->header[0] & 0xf0) == 0x80); /* FIN, no reserved bit */
        assert((p->header[1] & 0x80) == 0);
        assert(opcode == WS_TEXT || opcode == WS_BINARY || opcode == WS_CLOSE || opcode == WS_PING ||
               opcode == WS_PONG);
        assert(!p->closed);
        p->closed = opcode == WS_CLOSE;
        if (p->n_header == 2) {
                p->left = p->header[1];
        } else {
                p->left = 0;
                for (size_t i = 2; i < p->n_header; i++)
                        p->left = p->left << 8 | p->header[i];
        }
        assert(opcode < 8 || p->left <= WS_CONTROL_MAX);
        assert(p->left <= WS_MESSAGE_MAX);
        p->n_header = 0;
}

static void read_frames(Peer *p) {
        static uint8_t buffer[65536];
        ssize_t n;

        while (p->fd >= 0 && (n = recv(p->fd, buffer, sizeof(buffer), MSG_DONTWAIT)) > 0)
                for (ssize_t i = 0; i < n;) {
                        size_t k = MIN(p->left, (size_t) (n - i));

                        p->left -= k;
                        i += (ssize_t) k;
                        if (i == n)
                                break;
                        p->header[p->n_header++] = buffer[i++];
                        if (p->n_header >= 2 && p->n_header == header_length(p))
                                begin_frame(p);
                }
}

static void turn(Peer *p) {
        while (sd_event_run(p->event, 0) > 0)
                ;
}

/* One frame with this header, masked with zeros. */
static void send_frame(Peer *p, FuzzInput *in) {
        uint8_t frame[6 + 125] = { fuzz_byte(in), (uint8_t) (0x80 | fuzz_byte(in) % 126) };
        size_t n;
        const uint8_t *data = fuzz_bytes(in, frame[1] & 0x7f, &n);

        memcpy(frame + 6, data, n);
        (void) send(p->fd, frame, 6 + (frame[1] & 0x7fU), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void step(Peer *p, FuzzInput *in) {
        static const char zeros[65536];
        const uint8_t *data;
        size_t n;

        switch (fuzz_byte(in) % 10) {
        case 0:
        case 1:
                data = fuzz_bytes(in, fuzz_byte(in), &n);
                (void) send(p->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);
                break;
        case 2:
        case 3:
        case 4:
                send_frame(p, in);
                break;
        case 5:
                if (p->w)
                        ws_hold(p->w, fuzz_byte(in) & 1);
                break;
        case 6:
                if (p->w)
                        (void) ws_send(p->w, false, zeros, fuzz_byte(in) * (size_t) 257);
                break;
        case 7:
                read_frames(p);
                return; /* without a turn: the steps around it happen at once */
        case 8:
                if (p->w && fuzz_byte(in) % 4 == 0)
                        ws_close(p->w, 1000 + fuzz_byte(in), NULL);
                break;
        case 9:
                if (fuzz_byte(in) % 8 == 0)
                        (void) shutdown(p->fd, SHUT_WR);
                break;
        }
        turn(p);
}

static void check_event(const WsEvent *e) {
        switch (e->opcode) {
        case WS_TEXT:
                assert(e->n <= WS_MESSAGE_MAX && utf8_is_valid(e->data, e->n));
                break;
        case WS_BINARY:
                assert(e->n <= WS_MESSAGE_MAX);
                break;
        case WS_PING:
        case WS_PONG:
                assert(e->n <= WS_CONTROL_MAX);
                break;
        default:
                assert(e->opcode == WS_CLOSE && e->code >= 1000 && e->code < 5000);
                assert(e->n <= WS_REASON_MAX && utf8_is_valid(e->data, e->n));
        }
}

static void run_codec(FuzzInput *in) {
        _cleanup_(ws_codec_freep) WsCodec *c = NULL;
        WsEvent e = {};
        int r;

        r = ws_codec_new(&c);
        assert(r >= 0);
        while (r >= 0 && in->n > 0 && e.opcode != WS_CLOSE) {
                size_t size = 1U + fuzz_byte(in), n;
                const uint8_t *data = fuzz_bytes(in, size, &n);

                ws_codec_set_input(c, data, n);
                while (e.opcode != WS_CLOSE && (r = ws_codec_next(c, &e)) > 0) {
                        check_event(&e);
                        ws_codec_release(c);
                }
                assert(r != 0 || ws_codec_n_left(c) == 0);
                assert(ws_codec_n_buffered(c) <= WS_MESSAGE_MAX);
        }
        if (r < 0) {
                assert(r == -EBADMSG && e.opcode == WS_CLOSE);
                check_event(&e);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
        static const WsHandlers handlers = { on_message, on_writable, on_closed };
        static sd_event *event;
        FuzzInput in = { data, n };
        Peer p = {};
        int pair[2], r;

        p.flags = fuzz_byte(&in);
        if (p.flags & CODEC) {
                run_codec(&in);
                return 0;
        }

        if (!event)
                assert(sd_event_new(&event) >= 0);
        r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
        assert(r >= 0);
        p.event = event;
        p.fd = pair[1];

        r = ws_new(event, pair[0], &(WsConfig) { .buffered = &p.buffered }, "", NULL, 0, on_freed, &p, &p.w);
        assert(r >= 0);
        ws_set_handlers(p.w, &handlers, &p);
        while (in.n > 0)
                step(&p, &in);

        read_frames(&p);
        turn(&p);
        p.fd = close_fd(p.fd);
        if (p.w)
                ws_abort(p.w);
        turn(&p);
        assert(p.n_closed == 1 && p.n_freed == 1 && p.buffered == 0);
        return 0;
}
