/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "basic/limits.h"
#include "rest/ws-output.h"

#define FRAMES_SENT 64U /* by one system call */

void ws_queue_push(WsQueue *q, WsFrame *f) {
        f->next = NULL;
        if (q->last)
                q->last->next = f;
        else
                q->first = f;
        q->last = f;
        q->n_frames++;
        q->n_bytes += sizeof(WsFrame) + f->n;
}

WsFrame* ws_queue_pop(WsQueue *q) {
        WsFrame *f = q->first;

        if (!f)
                return NULL;
        q->first = f->next;
        if (!q->first)
                q->last = NULL;
        f->next = NULL;
        q->n_frames--;
        q->n_bytes -= sizeof(WsFrame) + f->n;
        return f;
}

void ws_queue_clear(WsQueue *q) {
        for (WsFrame *f; (f = ws_queue_pop(q));)
                free(f);
}

void ws_output_done(WsOutput *o) {
        ws_queue_clear(&o->control);
        ws_queue_clear(&o->messages);
        free(o->current);
        o->current = NULL;
}

int ws_output_begin(WsOutput *o, const char *text) {
        size_t n = strlen(text);

        assert(!o->current);
        if (n == 0)
                return 0;
        o->current = malloc(sizeof(WsFrame) + n);
        if (!o->current)
                return -ENOMEM;
        *o->current = (WsFrame) { .n = n };
        memcpy(o->current->data, text, n);
        return 0;
}

static void replace_pong(WsOutput *o, WsCodec *c, const void *data, size_t n) {
        WsFrame *last = o->control.last;

        o->control.n_bytes -= last->n;
        last->n = ws_codec_write(c, WS_PONG, data, n, last->data);
        o->control.n_bytes += last->n;
}

int ws_output_add(WsOutput *o, WsCodec *c, WsOpcode opcode, const void *data, size_t n) {
        bool overtakes = opcode == WS_PING || opcode == WS_PONG;
        WsFrame *f;

        if (opcode == WS_PONG && o->control.n_frames >= WS_PONGS_MAX) {
                replace_pong(o, c, data, n);
                return 0;
        }

        /* a pong may be written over it */
        f = malloc(sizeof(WsFrame) + WS_HEADER_MAX + (overtakes ? WS_CONTROL_MAX : n));
        if (!f)
                return -ENOMEM;
        *f = (WsFrame) {};
        f->n = ws_codec_write(c, opcode, data, n, f->data);
        ws_queue_push(overtakes ? &o->control : &o->messages, f);
        return 0;
}

/* The order in which forget() goes, too. */
static size_t gather(const WsOutput *o, struct iovec iov[static FRAMES_SENT]) {
        const WsFrame *chains[] = { o->current, o->control.first, o->messages.first };
        size_t n = 0;

        for (size_t i = 0; i < ELEMENTSOF(chains); i++)
                for (const WsFrame *f = chains[i]; f && n < FRAMES_SENT; f = f->next)
                        iov[n++] = (struct iovec) { (void *) (f->data + f->at), f->n - f->at };
        return n;
}

static void forget(WsOutput *o, size_t n) {
        while (n > 0) {
                WsFrame *f = o->current ?: ws_queue_pop(o->control.first ? &o->control : &o->messages);
                size_t k = MIN(n, f->n - f->at);

                f->at += k;
                n -= k;
                o->current = f->at < f->n ? f : NULL;
                if (!o->current)
                        free(f);
        }
}

ssize_t ws_output_flush(WsOutput *o, int fd) {
        size_t sent = 0;

        while (!ws_output_is_empty(o)) {
                struct iovec iov[FRAMES_SENT];
                struct msghdr m = { .msg_iov = iov, .msg_iovlen = gather(o, iov) };
                ssize_t k = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);

                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0 && errno == EAGAIN)
                        break;
                if (k < 0)
                        return -errno;
                forget(o, (size_t) k);
                sent += (size_t) k;
        }
        return (ssize_t) sent;
}

bool ws_output_is_empty(const WsOutput *o) {
        return !o->current && !o->control.first && !o->messages.first;
}

size_t ws_output_unsent(const WsOutput *o) {
        return o->messages.n_bytes + (o->current ? o->current->n - o->current->at : 0);
}

size_t ws_output_held(const WsOutput *o) {
        return o->control.n_bytes + o->messages.n_bytes + (o->current ? sizeof(WsFrame) + o->current->n : 0);
}
