/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "rest/gate-internal.h"
#include "shared/event.h"

#define ACCEPTS_PER_TURN   64U
#define FDS_PER_CONNECTION 3U
#define FDS_RESERVE        64U /* channels, bus, journal */
#define ACCEPT_PAUSE_USEC  (100 * USEC_PER_MSEC)

uint64_t gate_now(const Gate *g) {
        uint64_t usec = 0;

        (void) sd_event_now(g->event, CLOCK_BOOTTIME, &usec);
        return usec;
}

static int on_sweep(sd_event_source *s, uint64_t usec, void *userdata) {
        Gate *g = userdata;
        uint64_t now = gate_now(g), next = USEC_INFINITY;

        g->armed_usec = USEC_INFINITY;

        for (GateConn *c = g->conns, *after; c; c = after) {
                after = c->next;
                if (c->deadline > now) {
                        next = MIN(next, c->deadline);
                        continue;
                }
                gate_conn_ref(c);
                gate_conn_on_deadline(c);
                gate_conn_unref(c);
        }

        /* A handler above may have armed the timer for a connection that this loop has passed already. */
        gate_arm(g, MIN(next, g->armed_usec));
        return 0;
}

void gate_arm(Gate *g, uint64_t deadline) {
        uint64_t now;

        if (deadline >= g->armed_usec)
                return;

        now = gate_now(g);
        if (event_timer(g->event, &g->timer, deadline > now ? deadline - now : 0, PRIORITY_CLIENT, on_sweep,
                        g, "gate-deadlines") >= 0)
                g->armed_usec = deadline;
}

static int on_accept_again(sd_event_source *s, uint64_t usec, void *userdata) {
        Gate *g = userdata;

        if (g->draining)
                return 0;
        for (size_t i = 0; i < g->n_listeners; i++)
                (void) sd_event_source_set_enabled(g->listeners[i], SD_EVENT_ON);
        return 0;
}

/* No fd or no memory: spinning on the listener would not help, a pause may. */
static void gate_pause_accept(Gate *g) {
        for (size_t i = 0; i < g->n_listeners; i++)
                (void) sd_event_source_set_enabled(g->listeners[i], SD_EVENT_OFF);
        (void) event_timer(g->event, &g->accept_timer, ACCEPT_PAUSE_USEC, PRIORITY_CLIENT, on_accept_again,
                           g, "gate-accept");
}

static bool quota_is_left(const Gate *g, const Peer *p) {
        unsigned max = g->config.connections_max;

        if (!p->root)
                max -= MIN(max / 2, HTTP_CONNECTIONS_RESERVE);
        if (g->n_conns >= max)
                return false;
        return p->local || p->n_connections <= g->config.connections_per_peer_max;
}

/* Takes fd. */
static void gate_accepted(Gate *g, int fd) {
        GateConn *c;
        Peer *peer;
        bool good;

        if (peer_acquire(g->peers, fd, gate_now(g), &peer) < 0) {
                (void) close_fd(fd);
                return;
        }

        good = quota_is_left(g, peer);
        if (gate_conn_new(g, fd, peer, &c) < 0) {
                gate_pause_accept(g);
                return;
        }
        if (!good)
                gate_conn_reject(c, HTTP_REJECT_CONNECTIONS);
}

static int on_listener(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        Gate *g = userdata;

        for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
                int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (client >= 0) {
                        gate_accepted(g, client);
                        continue;
                }
                if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                        (void) log_warning_errno(errno, "Failed to accept a connection, pausing: %m");
                        gate_pause_accept(g);
                }
                if (errno != EINTR && errno != ECONNABORTED)
                        break;
        }
        return 0;
}

static void config_set_defaults(GateConfig *c) {
        struct rlimit limit;
        uint64_t fds = HTTP_CONNECTIONS_MAX * FDS_PER_CONNECTION + FDS_RESERVE;
        unsigned possible;

        if (getrlimit(RLIMIT_NOFILE, &limit) >= 0)
                fds = MIN(fds, (uint64_t) limit.rlim_cur);
        possible = fds > FDS_RESERVE ? (unsigned) ((fds - FDS_RESERVE) / FDS_PER_CONNECTION) : 1;
        possible = MAX(possible, 1U);
        c->connections_max = MIN(c->connections_max ?: HTTP_CONNECTIONS_MAX, possible);
        c->connections_per_peer_max = c->connections_per_peer_max ?: HTTP_CONNECTIONS_PER_PEER_MAX;
        c->first_byte_usec = c->first_byte_usec ?: HTTP_FIRST_BYTE_USEC;
        c->head_usec = c->head_usec ?: HTTP_HEAD_USEC;
        c->idle_usec = c->idle_usec ?: HTTP_IDLE_USEC;
        c->write_stall_usec = c->write_stall_usec ?: HTTP_WRITE_STALL_USEC;
        c->stream_idle_usec = c->stream_idle_usec ?: HTTP_STREAM_IDLE_USEC;
}

int gate_new(sd_event *e, const GateConfig *config, const GateHandlers *handlers, void *userdata,
             Gate **ret) {
        _cleanup_(gate_freep) Gate *g = NULL;
        int r;

        g = malloc(sizeof(Gate));
        if (!g)
                return -ENOMEM;

        *g = (Gate) {
                .event = sd_event_ref(e),
                .config = *config,
                .handlers = handlers,
                .userdata = userdata,
                .armed_usec = USEC_INFINITY,
        };
        config_set_defaults(&g->config);

        g->scratch_in = malloc(HTTP_RELAY_BYTES);
        g->scratch_out = malloc(HTTP_RELAY_BYTES);
        if (!g->scratch_in || !g->scratch_out)
                return -ENOMEM;

        r = peer_table_new(&g->peers);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(g);
        return 0;
}

void gate_close_all(Gate *g) {
        g->on_idle = NULL;
        while (g->conns)
                if (g->conns->phase == CONN_TAKEN)
                        g->handlers->on_end(g->conns, /* now= */ true, g->userdata);
                else
                        gate_conn_close(g->conns, false);
}

Gate* gate_free(Gate *g) {
        if (!g)
                return NULL;

        for (size_t i = 0; i < g->n_listeners; i++)
                event_source_free(g->listeners[i]);
        free(g->listeners);
        event_source_free(g->timer);
        event_source_free(g->accept_timer);
        event_source_free(g->flush_source);
        gate_close_all(g);
        gate_flush(g);
        peer_table_free(g->peers);
        sd_event_unref(g->event);
        free(g->scratch_in);
        free(g->scratch_out);
        free(g);
        return NULL;
}

int gate_add_listener(Gate *g, int fd) {
        sd_event_source **listeners;
        int r;

        r = fd_nonblock(fd, true);
        if (r < 0)
                return r;

        listeners = reallocarray(g->listeners, g->n_listeners + 1, sizeof(*listeners));
        if (!listeners)
                return -ENOMEM;
        g->listeners = listeners;

        r = event_io(g->event, &g->listeners[g->n_listeners], fd, EPOLLIN, PRIORITY_CLIENT, on_listener, g,
                     "gate-listener");
        if (r < 0)
                return r;
        (void) sd_event_source_set_io_fd_own(g->listeners[g->n_listeners], true);
        g->n_listeners++;
        return 0;
}

void gate_drain(Gate *g, void (*on_idle)(void *userdata), void *userdata) {
        g->draining = true;
        for (size_t i = 0; i < g->n_listeners; i++)
                (void) sd_event_source_set_enabled(g->listeners[i], SD_EVENT_OFF);

        for (GateConn *c = g->conns, *after; c; c = after) {
                after = c->next;
                if (c->phase == CONN_HEAD || c->phase == CONN_LINGER)
                        gate_conn_close(c, false);
                else if (c->phase == CONN_TAKEN)
                        g->handlers->on_end(c, /* now= */ false, g->userdata);
        }

        if (g->n_conns == 0) {
                on_idle(userdata);
                return;
        }
        g->on_idle = on_idle;
        g->idle_userdata = userdata;
}

unsigned gate_n_connections(const Gate *g) {
        return g->n_conns;
}

void gate_flush(Gate *g) {
        while (g->ready) {
                GateConn *c = g->ready;

                g->ready = c->next_ready;
                c->next_ready = NULL;
                c->ready = false;
                gate_conn_drain(c);
                gate_conn_unref(c); /* taken by gate_conn_completed() */
        }
}
