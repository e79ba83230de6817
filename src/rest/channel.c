/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "rest/channel.h"
#include "shared/event.h"
#include "shared/h2-conn.h"
#include "shared/json-field.h"

#define ERROR_BODY_MAX (16 * KIB)
#define REFUSALS_MAX   8U

typedef struct Channel Channel;

struct ChannelTable {
        sd_event *event;
        BusClient *bus;    /* weak: the server's */
        Hashmap *channels; /* id -> Channel */
};

struct Channel {
        ChannelTable *table; /* weak */
        char *id, *path, *team, *key_id;
        BusCall *opening;
        H2Conn *conn;
        ProcessCall *waiting, **waiting_end; /* for a connection or a stream, in order */
        unsigned n_waiting;
        ProcessCall *running;   /* with a stream */
        sd_event_source *defer; /* channel_advance() from the loop */
};

struct ProcessCall {
        Channel *channel; /* weak; NULL: unlinked */
        ProcessCall *next, **link;
        const ProcessHandlers *handlers;
        void *userdata;
        char *spec; /* kept until the agent answers: a refused stream is tried again */
        size_t n_sent;
        H2Stream *stream;
        FrameDecoder decoder;
        char *error; /* body of an error answer */
        size_t n_error;
        unsigned n_refused;
        bool waiting, exited, dispatching, dead, retried;
};

static void channel_advance(Channel *c);
static void on_stream_writable(H2Stream *st, void *userdata);

/* Calls. */

static void call_unlink(ProcessCall *p) {
        Channel *c = p->channel;

        if (!c)
                return;
        *p->link = p->next;
        if (p->next)
                p->next->link = p->link;
        if (p->waiting) {
                c->n_waiting--;
                if (c->waiting_end == &p->next)
                        c->waiting_end = p->link;
        }
        p->channel = NULL;
        p->waiting = false;
}

ProcessCall* process_call_free(ProcessCall *p) {
        if (!p)
                return NULL;

        call_unlink(p);
        if (p->stream) {
                h2_stream_set_userdata(p->stream, NULL);
                if (!p->exited)
                        (void) h2_stream_reset(p->stream, H2_CANCEL);
                p->stream = NULL;
        }
        p->dead = true;
        if (p->dispatching)
                return NULL;

        frame_decoder_done(&p->decoder);
        free(p->spec);
        free(p->error);
        free(p);
        return NULL;
}

static void call_fail(ProcessCall *p, FaultCode code, const char *message) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        call_unlink(p);
        if (p->stream) {
                h2_stream_set_userdata(p->stream, NULL);
                p->stream = NULL;
        }
        (void) fault_set(&fault, code, "%s", message);
        p->handlers->on_failed(p, &fault, p->userdata);
}

/* The agent's error object, {"error":{"code","message"}}. */
static void call_fail_agent(ProcessCall *p, unsigned status) {
        _cleanup_json_ json_t *root = NULL;
        const char *code = NULL, *message = NULL;
        FaultCode f = FAULT_AGENT;

        root = json_loadb(p->error ?: "", p->n_error, JSON_REJECT_DUPLICATES, NULL);
        if (root)
                (void) json_unpack(root, "{s:{s?s,s?s}}", "error", "code", &code, "message", &message);
        if (code)
                f = fault_from_wire_name(code);
        if (f <= FAULT_NONE || f == FAULT_INTERNAL)
                f = status == 400 ? FAULT_INVALID_ARGS : FAULT_AGENT;
        call_fail(p, f, message ?: "The capsule's agent refused the command.");
}

/* Streams. */

static int on_call_frame(FrameType type, const void *payload, size_t n, void *userdata) {
        ProcessCall *p = userdata;

        if (type == FRAME_EXIT)
                p->exited = true;
        p->handlers->on_frame(p, type, payload, n, p->userdata);
        return p->dead ? -ECANCELED : 0;
}

static void call_data(ProcessCall *p, unsigned status, const void *data, size_t n) {
        int r;

        if (status != 200) {
                char *error;

                if (p->n_error + n > ERROR_BODY_MAX)
                        return;
                error = realloc(p->error, p->n_error + n);
                if (!error)
                        return;
                p->error = error;
                memcpy(error + p->n_error, data, n);
                p->n_error += n;
                return;
        }

        if (p->exited)
                return;
        p->dispatching = true;
        r = frame_decoder_feed(&p->decoder, data, n, on_call_frame, p);
        p->dispatching = false;
        if (p->dead) {
                (void) process_call_free(p);
                return;
        }
        if (r < 0) {
                (void) h2_stream_reset(p->stream, H2_CANCEL);
                call_fail(p, FAULT_AGENT, "The capsule's agent sent something malformed.");
        }
}

/* The status is looked at when data or the end comes. */
static void on_stream_headers(H2Stream *st, bool end, void *userdata) {
        ProcessCall *p = h2_stream_userdata(st);
        char *empty;

        if (p && p->n_sent == strlen(p->spec)) {
                p->spec[0] = '\0';
                p->n_sent = 0;
                empty = realloc(p->spec, 1);
                p->spec = empty ?: p->spec;
        }
}

static void on_stream_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        ProcessCall *p = h2_stream_userdata(st);

        if (p)
                call_data(p, h2_stream_status(st), data, n);
        h2_stream_consume(st, n);
}

static void on_stream_end(H2Stream *st, void *userdata) {
        ProcessCall *p = h2_stream_userdata(st);

        if (!p || p->exited)
                return;
        if (h2_stream_status(st) == 200)
                call_fail(p, FAULT_AGENT, "The capsule's agent lost the command.");
        else
                call_fail_agent(p, h2_stream_status(st));
}

static int on_defer(sd_event_source *s, void *userdata) {
        channel_advance(userdata);
        return 0;
}

static void channel_defer(Channel *c) {
        (void) event_defer(c->table->event, &c->defer, PRIORITY_VMM, on_defer, c);
}

/*
 * A refused stream was not looked at, which happens when more streams were opened than the peer takes before
 * it said how many: the call waits again, in front of the others, until one of ours ends.
 */
static bool call_retry(ProcessCall *p) {
        Channel *c = p->channel;

        if (p->n_refused++ >= REFUSALS_MAX)
                return false;

        call_unlink(p);
        p->channel = c;
        p->waiting = true;
        p->n_sent = 0;
        p->link = &c->waiting;
        p->next = c->waiting;
        if (p->next)
                p->next->link = &p->next;
        else
                c->waiting_end = &p->next;
        c->waiting = p;
        c->n_waiting++;
        return true;
}

static void on_stream_close(H2Stream *st, uint32_t error, void *userdata) {
        Channel *c = userdata;
        ProcessCall *p = h2_stream_userdata(st);
        bool again = false;

        if (p) {
                p->stream = NULL;
                again = !p->exited && error == H2_REFUSED_STREAM && call_retry(p);
        }
        if (p && !p->exited && !again) {
                if (error == H2_REFUSED_STREAM)
                        call_fail(p, FAULT_NO_CAPACITY, "Too many commands run in this capsule.");
                else
                        call_fail(p, FAULT_AGENT, "The connection to the capsule was lost.");
        }
        if (c->waiting && !(again && c->running))
                channel_defer(c);
}

static void on_conn_closed(H2Conn *conn, int error, void *userdata) {
        Channel *c = userdata;

        log_capsule(c->id, LOG_DEBUG, error, "Channel closed: %m");
        c->conn = h2_conn_free(c->conn);
        if (c->waiting)
                channel_defer(c);
}

static const H2ConnHandlers conn_handlers = {
        .h2 = {
                .on_headers = on_stream_headers,
                .on_data = on_stream_data,
                .on_end = on_stream_end,
                .on_writable = on_stream_writable,
                .on_close = on_stream_close,
        },
        .on_closed = on_conn_closed,
};

/* Connections. */

static void channel_fail_waiting(Channel *c, FaultCode code, const char *message) {
        while (c->waiting)
                call_fail(c->waiting, code, message);
}

static Channel* channel_free(Channel *c) {
        if (!c)
                return NULL;

        if (c->id && hashmap_get(c->table->channels, c->id) == c)
                (void) hashmap_remove(c->table->channels, c->id);
        c->opening = bus_call_free(c->opening);
        c->conn = h2_conn_free(c->conn); /* fails what runs */
        channel_fail_waiting(c, FAULT_INVALID_STATE, "The capsule is not running any more.");
        while (c->running)
                call_fail(c->running, FAULT_AGENT, "The connection to the capsule was lost.");
        event_source_free(c->defer);
        free(c->id);
        free(c->path);
        free(c->team);
        free(c->key_id);
        free(c);
        return NULL;
}
DEFINE_CLEANUP(Channel, channel_free)

static void on_opened(BusCall *call, int r, sd_bus_message *reply, const Fault *fault, void *userdata) {
        Channel *c = userdata;
        _cleanup_close_ int fd = -EBADF;
        int borrowed;

        c->opening = bus_call_free(c->opening);
        if (r < 0) {
                channel_fail_waiting(c, fault->code, fault->message);
                return;
        }

        r = sd_bus_message_read(reply, "h", &borrowed);
        if (r >= 0) {
                fd = fcntl(borrowed, F_DUPFD_CLOEXEC, 3);
                r = fd < 0 ? -errno : fd_nonblock(fd, true);
        }
        if (r >= 0)
                r = h2_conn_new(c->table->event, fd, /* server= */ false, &conn_handlers, c, NULL,
                                PRIORITY_VMM, &c->conn);
        if (r < 0) {
                channel_fail_waiting(c, FAULT_AGENT, "Failed to reach the capsule's agent.");
                return;
        }
        TAKE_FD(fd);
        channel_advance(c);
}

static int channel_open(Channel *c) {
        sd_bus_message *m = NULL;
        int r;

        r = bus_client_message(c->table->bus, c->path, "OpenChannel", &m);
        if (r >= 0)
                r = bus_message_open_options(m, c->team, c->key_id);
        if (r >= 0)
                r = bus_message_close_options(m);
        if (r >= 0)
                r = bus_client_send(c->table->bus, m, 0, on_opened, c, &c->opening);
        sd_bus_message_unref(m);
        return r;
}

/* Opens the stream of one call and sends the specification. -EAGAIN: no stream is free. */
static int call_send(ProcessCall *p) {
        static const H2Header headers[] = { { "content-type", "application/vnd.wrenn.frames" } };
        H2Session *session = h2_conn_session(p->channel->conn);
        uint8_t head[FRAME_HEADER_LEN];
        size_t n = strlen(p->spec);
        H2Stream *stream;
        int r;

        r = h2_session_request(session, "POST", "/processes", headers, ELEMENTSOF(headers), /* end= */ false,
                               p, &stream);
        if (r < 0)
                return r;

        frame_header(head, FRAME_SPEC, (uint32_t) n);
        p->stream = stream;
        if (h2_stream_write(stream, head, sizeof(head)) != (ssize_t) sizeof(head))
                return -EPROTO;
        return 0;
}

/* The rest of the specification as far as the stream takes it; the stream's queue is smaller than the
 * largest one. */
static int call_send_spec(ProcessCall *p) {
        size_t n = strlen(p->spec);
        ssize_t k;

        k = h2_stream_write(p->stream, p->spec + p->n_sent, n - p->n_sent);
        if (k < 0)
                return (int) k;
        p->n_sent += (size_t) k;
        return p->n_sent == n ? h2_stream_end(p->stream) : 0;
}

static void on_stream_writable(H2Stream *st, void *userdata) {
        ProcessCall *p = h2_stream_userdata(st);

        if (p && p->n_sent < strlen(p->spec) && call_send_spec(p) < 0) {
                (void) h2_stream_reset(st, H2_CANCEL);
                call_fail(p, FAULT_AGENT, "Failed to send the command to the capsule.");
        }
}

static void call_set_running(ProcessCall *p) {
        Channel *c = p->channel;

        call_unlink(p);
        p->channel = c;
        p->next = c->running;
        p->link = &c->running;
        if (p->next)
                p->next->link = &p->next;
        c->running = p;
}

/* The connection takes no new streams (GOAWAY, or about to be closed): once per call another one is opened.
 */
static bool channel_reopen(Channel *c, ProcessCall *p) {
        if (p->retried)
                return false;
        p->retried = true;
        c->conn = h2_conn_free(c->conn);
        return true;
}

static void channel_advance(Channel *c) {
        while (c->waiting && c->conn) {
                ProcessCall *p = c->waiting;
                int r;

                r = call_send(p);
                if (r == -EAGAIN)
                        return;
                if (r == -ENOTCONN && channel_reopen(c, p))
                        break;
                if (r >= 0)
                        r = call_send_spec(p);
                if (r < 0) {
                        if (p->stream)
                                (void) h2_stream_reset(p->stream, H2_CANCEL);
                        call_fail(p, FAULT_AGENT, "Failed to send the command to the capsule.");
                        continue;
                }

                call_set_running(p);
        }

        if (c->waiting && !c->opening && channel_open(c) < 0)
                channel_fail_waiting(c, FAULT_BACKEND_UNAVAILABLE,
                                     "Failed to ask for a connection to the capsule.");
}

static int channel_get(ChannelTable *t, const CapsuleView *capsule, const AuthKey *key, Channel **ret) {
        _cleanup_(channel_freep) Channel *c = NULL;
        int r;

        *ret = hashmap_get(t->channels, capsule->id);
        if (*ret)
                return 0;

        c = malloc(sizeof(Channel));
        if (!c)
                return -ENOMEM;
        *c = (Channel) {
                .table = t,
                .id = strdup(capsule->id),
                .path = strdup(capsule->path),
                .team = strdup(key->team),
                .key_id = strdup(key->id),
        };
        c->waiting_end = &c->waiting;
        if (!c->id || !c->path || !c->team || !c->key_id)
                return -ENOMEM;

        r = hashmap_put(t->channels, c->id, c);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
}

int channel_start_process(ChannelTable *t, const CapsuleView *capsule, const AuthKey *key, const char *spec,
                          const ProcessHandlers *handlers, void *userdata, ProcessCall **ret) {
        _cleanup_(process_call_freep) ProcessCall *p = NULL;
        Channel *c;
        int r;

        r = channel_get(t, capsule, key, &c);
        if (r < 0)
                return r;
        if (c->n_waiting >= EXEC_PENDING_MAX)
                return -ENOBUFS;

        p = malloc(sizeof(ProcessCall));
        if (!p)
                return -ENOMEM;
        *p = (ProcessCall) { .handlers = handlers, .userdata = userdata, .spec = strdup(spec) };
        if (!p->spec)
                return -ENOMEM;

        /* With a connection at hand it is sent now; callbacks still come from the loop only. */
        if (!c->conn || c->waiting) {
                r = event_defer(t->event, &c->defer, PRIORITY_VMM, on_defer, c);
                if (r < 0)
                        return r;
        }

        p->channel = c;
        p->waiting = true;
        p->link = c->waiting_end;
        *c->waiting_end = p;
        c->waiting_end = &p->next;
        c->n_waiting++;

        if (c->conn && c->waiting == p) {
                r = call_send(p);
                if (r < 0) {
                        r = event_defer(t->event, &c->defer, PRIORITY_VMM, on_defer, c);
                        if (r < 0)
                                return r;
                } else {
                        r = call_send_spec(p);
                        if (r < 0)
                                return r;
                        call_set_running(p);
                }
        }
        *ret = TAKE_PTR(p);
        return 0;
}

void channel_drop(ChannelTable *t, const char *id) {
        (void) channel_free(hashmap_get(t->channels, id));
}

size_t channel_table_size(const ChannelTable *t) {
        return hashmap_size(t->channels);
}

int channel_table_new(sd_event *e, BusClient *bus, ChannelTable **ret) {
        _cleanup_(channel_table_freep) ChannelTable *t = NULL;

        t = malloc(sizeof(ChannelTable));
        if (!t)
                return -ENOMEM;
        *t = (ChannelTable) { .event = sd_event_ref(e), .bus = bus, .channels = hashmap_new() };
        if (!t->channels)
                return -ENOMEM;

        *ret = TAKE_PTR(t);
        return 0;
}

ChannelTable* channel_table_free(ChannelTable *t) {
        Channel *c;

        if (!t)
                return NULL;
        while ((c = hashmap_first(t->channels)))
                channel_free(c);
        hashmap_free(t->channels);
        sd_event_unref(t->event);
        free(t);
        return NULL;
}
