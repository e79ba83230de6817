/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* An H2Session on a socket or port, driven by sd-event: for the monitor (both sides) and wrenn-restd. */

#include <systemd/sd-event.h>

#include "shared/h2.h"

typedef struct H2Conn H2Conn;

typedef struct H2ConnHandlers {
        /* userdata there is the H2Conn's; on_want_write is not used */
        H2Handlers h2;
        /* The connection ended: 0 EOF, -EPROTO, -errno; every stream got its on_close before and
         * h2_conn_session() is NULL. Once; free it here or later. */
        void (*on_closed)(H2Conn *c, int error, void *userdata);
} H2ConnHandlers;

/* Takes fd on success. Writes are batched per loop turn. handlers are borrowed. */
int h2_conn_new(sd_event *e, int fd, bool server, const H2ConnHandlers *handlers, void *userdata,
                const H2Limits *limits, int64_t priority, H2Conn **ret);
/* on_close runs for every open stream, on_closed does not. Not from within a callback of h2. */
H2Conn* h2_conn_free(H2Conn *c);
DEFINE_CLEANUP(H2Conn, h2_conn_free)
H2Session* h2_conn_session(const H2Conn *c);
int h2_conn_fd(const H2Conn *c);
