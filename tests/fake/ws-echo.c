/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The gate and the WebSocket layer of wrenn-restd with the simplest of services behind them, so that tests
 * can say something to it; prints its port. The path says which: /echo    sends every message back, and
 * holds while nobody reads /flood   sends messages as long as there is room, takes and forgets what comes
 *   /hold    takes nothing
 *   /close   sends "bye" and closes with 4001 at the first message
 *   /count   answers "N messages, M bytes" to every text "?"
 *
 * ws-echo [CLOSE-MS [PING-MS [WRITE-STALL-MS]]]: times in milliseconds, 0 for those of wrenn-restd
 */

#include <malloc.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/gate.h"
#include "rest/ws-upgrade.h"
#include "rest/ws.h"
#include "shared/event.h"

typedef struct Echo {
        sd_event *event;
        Gate *gate;
        WsConfig config;
        size_t buffered;
} Echo;

typedef struct Client {
        Echo *echo;
        GateConn *conn;
        WsConn *w;
        char path[16], accept[WS_ACCEPT_LEN + 1];
        size_t n_messages, n_bytes;
} Client;

static void on_echo(WsConn *w, bool text, const void *data, size_t n, void *userdata) {
        if (ws_send(w, text, data, n) == -ENOBUFS)
                ws_close(w, WS_CODE_INTERNAL, "no room");
        if (ws_room(w) == 0)
                ws_hold(w, true);
}

static void on_echo_writable(WsConn *w, void *userdata) {
        ws_hold(w, false);
}

static void on_ignored(WsConn *w, bool text, const void *data, size_t n, void *userdata) {
}

static void flood(WsConn *w, void *userdata) {
        static const char chunk[4096] = "flood";

        while (ws_room(w) > 0 && ws_send(w, false, chunk, sizeof(chunk)) >= 0)
                ;
}

static void on_closing(WsConn *w, bool text, const void *data, size_t n, void *userdata) {
        (void) ws_send(w, true, "bye", 3);
        ws_close(w, 4001, "as asked");
}

static void on_counted(WsConn *w, bool text, const void *data, size_t n, void *userdata) {
        Client *c = userdata;
        char answer[64];

        if (!text || n != 1 || memcmp(data, "?", 1) != 0) {
                c->n_messages++;
                c->n_bytes += n;
                return;
        }
        (void) snprintf(answer, sizeof(answer), "%zu messages, %zu bytes", c->n_messages, c->n_bytes);
        (void) ws_send(w, true, answer, strlen(answer));
}

static void on_closed(WsConn *w, unsigned code, void *userdata) {
}

static const struct {
        const char *path;
        WsHandlers handlers;
} services[] = {
        { "/echo", { on_echo, on_echo_writable, on_closed } },
        { "/flood", { on_ignored, flood, on_closed } },
        { "/hold", { on_ignored, NULL, on_closed } },
        { "/close", { on_closing, NULL, on_closed } },
        { "/count", { on_counted, NULL, on_closed } },
};

static void on_freed(void *userdata) {
        Client *c = userdata;

        gate_conn_release(c->conn);
        free(c);
}

static void on_taken(GateConn *conn, int fd, const char *data, size_t n, void *userdata) {
        Client *c = gate_conn_request(conn);
        char answer[sizeof(WS_UPGRADE_ANSWER) + WS_ACCEPT_LEN];

        (void) snprintf(answer, sizeof(answer), WS_UPGRADE_ANSWER, c->accept);
        if (ws_new(c->echo->event, fd, &c->echo->config, answer, data, n, on_freed, c, &c->w) < 0) {
                on_freed(c);
                return;
        }
        for (size_t i = 0; i < ELEMENTSOF(services); i++)
                if (streq(services[i].path, c->path))
                        ws_set_handlers(c->w, &services[i].handlers, c);
        if (streq(c->path, "/hold"))
                ws_hold(c->w, true);
        if (streq(c->path, "/flood"))
                flood(c->w, c);
}

static void on_end(GateConn *conn, bool now, void *userdata) {
        Client *c = gate_conn_request(conn);

        if (now)
                ws_abort(c->w);
        else
                ws_close(c->w, WS_CODE_GOING_AWAY, NULL);
}

static GateVerdict on_head(GateConn *conn, const HttpHead *head, const char *data, HttpHostClass host,
                           uint64_t *ret_body_max, GateRefusal *ret, void *userdata) {
        Client *c;

        c = calloc(1, sizeof(Client));
        if (!c) {
                ret->reject = HTTP_REJECT_CONNECTIONS;
                return GATE_REFUSE;
        }
        c->echo = userdata;
        c->conn = conn;
        (void) snprintf(c->path, sizeof(c->path), "%.*s", (int) head->path.n, data + head->path.offset);
        ret->reject = ws_upgrade_check(head, data, c->accept);
        if (ret->reject == HTTP_REJECT_UPGRADE)
                strcpy(ret->header, WS_UPGRADE_HEADERS);
        if (ret->reject != HTTP_REJECT_NONE) {
                free(c);
                return GATE_REFUSE;
        }
        gate_conn_set_request(conn, c);
        return GATE_TAKE;
}

static int on_attach(GateConn *c, int fd, void *userdata) {
        (void) close_fd(fd);
        return -EOPNOTSUPP; /* every good request is taken */
}

static void on_gone(GateConn *c, void *userdata) {
}

static const GateHandlers gate_handlers = {
        .on_head = on_head,
        .on_attach = on_attach,
        .on_relayed = on_gone,
        .on_gone = on_gone,
        .on_taken = on_taken,
        .on_end = on_end,
};

static int listen_somewhere(Echo *echo) {
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t n = sizeof(a);
        int fd;

        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *) &a, sizeof(a)) < 0 || listen(fd, 4096) < 0 ||
            getsockname(fd, (struct sockaddr *) &a, &n) < 0) {
                int r = -errno;

                (void) close_fd(fd);
                return r;
        }
        printf("%u\n", ntohs(a.sin_port));
        (void) fflush(stdout);
        return gate_add_listener(echo->gate, fd);
}

int main(int argc, char *argv[]) {
        Echo echo = {};
        struct rlimit files;
        int r;

        /* as wrenn-restd does */
        (void) mallopt(M_ARENA_MAX, 1);
        (void) mallopt(M_TRIM_THRESHOLD, 256 * 1024);
        if (getrlimit(RLIMIT_NOFILE, &files) >= 0) {
                files.rlim_cur = files.rlim_max;
                (void) setrlimit(RLIMIT_NOFILE, &files);
        }

        echo.config = (WsConfig) {
                .close_usec = argc > 1 ? strtoull(argv[1], NULL, 10) * USEC_PER_MSEC : 0,
                .ping_usec = argc > 2 ? strtoull(argv[2], NULL, 10) * USEC_PER_MSEC : 0,
                .write_stall_usec = argc > 3 ? strtoull(argv[3], NULL, 10) * USEC_PER_MSEC : 0,
                .buffered = &echo.buffered,
        };
        r = event_new_main(&echo.event);
        if (r >= 0)
                r = gate_new(echo.event, &(GateConfig) {}, &gate_handlers, &echo, &echo.gate);
        if (r >= 0)
                r = listen_somewhere(&echo);
        if (r >= 0)
                r = sd_event_loop(echo.event);
        gate_free(echo.gate);
        sd_event_unref(echo.event);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
