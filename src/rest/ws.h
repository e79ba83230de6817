/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One WebSocket of a client (RFC 6455), behind its upgrade: a socket, the codec, a bounded queue. Pings are
 * answered at all times. Callbacks run from the event loop only, never from within a call of ours (but
 * ws_abort()); they may call everything here but ws_abort(). Whatever a peer does ends in on_closed(): a
 * wrong frame with the Close that RFC 6455 wants for it, silence (WS_PING_USEC), unread output
 * (HTTP_WRITE_STALL_USEC) and too much memory of all (WS_BUFFERED_TOTAL_MAX), too.
 */

#include <systemd/sd-event.h>

#include "rest/ws-codec.h"

typedef struct WsConn WsConn;

typedef struct WsHandlers {
        /* One whole message, at most WS_MESSAGE_MAX; text is valid UTF-8. Borrowed. */
        void (*on_message)(WsConn *w, bool text, const void *data, size_t n, void *userdata);
        /* The queue fell to half of WS_QUEUE_BYTES_MAX or below. May be NULL. */
        void (*on_writable)(WsConn *w, void *userdata);
        /* The connection is over, by either side: code of the peer's Close, or 1006. Once, last; free what
         * hangs on it. The WsConn frees itself afterwards. */
        void (*on_closed)(WsConn *w, unsigned code, void *userdata);
} WsHandlers;

typedef struct WsConfig {
        uint64_t close_usec, ping_usec, write_stall_usec; /* 0: the limit of basic/limits.h */
        size_t *buffered; /* weak, NULL allowed: what all that share it hold now */
} WsConfig;

/*
 * fd: a connected, non-blocking stream socket, taken in every case. answer: what goes out first (the 101).
 * input: what came behind the request's head already. Both are copied. on_freed: may be NULL; runs when
 * nothing of w is left, behind on_closed(). Set handlers before the loop goes on; without them messages are
 * dropped.
 */
int ws_new(sd_event *e, int fd, const WsConfig *config, const char *answer, const void *input,
           size_t n_input, void (*on_freed)(void *userdata), void *userdata, WsConn **ret);
void ws_set_handlers(WsConn *w, const WsHandlers *handlers, void *userdata);
/* Ends it now, without a Close: on_closed() and on_freed() run before the return. */
void ws_abort(WsConn *w);

/*
 * Queues one message (copied, one frame). text: data is valid UTF-8. Never refused below twice
 * WS_QUEUE_BYTES_MAX: stop producing while ws_room() is 0. -ENOBUFS when so much is queued, -ESHUTDOWN
 * behind a Close, -ENOMEM.
 */
int ws_send(WsConn *w, bool text, const void *data, size_t n);
size_t ws_room(const WsConn *w);
/* Back-pressure from the handler: no on_message while held. What comes is buffered up to WS_MESSAGE_MAX, so
 * pings are still answered; then reading stops. */
void ws_hold(WsConn *w, bool hold);
/* Sends Close behind what is queued; no on_message follows, on_closed within WS_CLOSE_USEC after it is out.
 * reason: UTF-8, cut to WS_REASON_MAX; NULL: none. Nothing happens when it is closing already. */
void ws_close(WsConn *w, unsigned code, const char *reason);
