/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
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
        AgentCall *waiting, **waiting_end; /* for a connection or a stream, in order */
        unsigned n_waiting;
        AgentCall *running;     /* with a stream */
        sd_event_source *defer; /* channel_advance() from the loop */
};

struct AgentCall {
        Channel *channel; /* weak; NULL: unlinked */
        AgentCall *next, **link;
        const AgentCallHandlers *handlers;
        void *userdata;
        const char *method; /* a literal */
        char *path;
        H2Stream *stream;
        char *error; /* body of an error answer */
        size_t n_error;
        unsigned n_refused;
        bool waiting, written, ended; /* ended: nothing of the request follows */
        bool reopened;
};

static void channel_advance(Channel *c);

/* Calls. */

static void call_unlink(AgentCall *a) {
        Channel *c = a->channel;

        if (!c)
                return;
        *a->link = a->next;
        if (a->next)
                a->next->link = a->link;
        if (a->waiting) {
                c->n_waiting--;
                if (c->waiting_end == &a->next)
                        c->waiting_end = a->link;
        }
        a->channel = NULL;
        a->waiting = false;
}

/* The agent's answer is whole. What it did not want of the request is not sent any more. */
static void call_finish_stream(AgentCall *a) {
        if (!a->stream)
                return;
        h2_stream_set_userdata(a->stream, NULL);
        if (!a->ended && h2_stream_room(a->stream) == H2_QUEUE_BYTES_MAX)
                (void) h2_stream_end(a->stream);
        else if (!a->ended)
                (void) h2_stream_reset(a->stream, H2_NO_ERROR);
        a->stream = NULL;
}

static void call_reset_stream(AgentCall *a) {
        if (!a->stream)
                return;
        h2_stream_set_userdata(a->stream, NULL);
        (void) h2_stream_reset(a->stream, H2_CANCEL);
        a->stream = NULL;
}

AgentCall* agent_call_leave(AgentCall *a) {
        if (!a)
                return NULL;

        call_unlink(a);
        call_finish_stream(a);
        free(a->path);
        free(a->error);
        free(a);
        return NULL;
}

AgentCall* agent_call_free(AgentCall *a) {
        if (a)
                call_reset_stream(a);
        return agent_call_leave(a);
}

size_t agent_call_room(const AgentCall *a) {
        return a->stream && !a->ended ? h2_stream_room(a->stream) : 0;
}

ssize_t agent_call_write(AgentCall *a, const void *data, size_t n) {
        if (a->ended)
                return -EPIPE;
        if (!a->stream || n == 0)
                return 0;
        a->written = true;
        return h2_stream_write(a->stream, data, n);
}

int agent_call_end(AgentCall *a) {
        if (a->ended)
                return 0;
        a->ended = true;
        return a->stream ? h2_stream_end(a->stream) : 0;
}

void agent_call_consume(AgentCall *a, size_t n) {
        if (a->stream)
                h2_stream_consume(a->stream, n);
}

static void call_fail(AgentCall *a, FaultCode code, const char *message) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        call_unlink(a);
        call_reset_stream(a);
        (void) fault_set(&fault, code, "%s", message);
        a->handlers->on_failed(a, &fault, a->userdata);
}

/* Codes a guest may cause here; its other ones would speak for us. */
static bool code_is_of_guest(FaultCode code) {
        static const FaultCode codes[] = {
                FAULT_INVALID_ARGS,   FAULT_ACCESS_DENIED,  FAULT_NOT_FOUND,
                FAULT_INVALID_STATE,  FAULT_ALREADY_EXISTS, FAULT_TOO_LARGE,
                FAULT_QUOTA_EXCEEDED, FAULT_AGENT_NO_SPACE, FAULT_TIMEOUT,
        };

        for (size_t i = 0; i < ELEMENTSOF(codes); i++)
                if (codes[i] == code)
                        return true;
        return false;
}

/* The agent's error object, {"error":{"code","message"}}. */
static void call_fail_agent(AgentCall *a, unsigned status) {
        _cleanup_json_ json_t *root = NULL;
        const char *code = NULL, *message = NULL;
        FaultCode f = FAULT_AGENT;

        root = json_loadb(a->error ?: "", a->n_error, JSON_REJECT_DUPLICATES, NULL);
        if (root)
                (void) json_unpack(root, "{s:{s?s,s?s}}", "error", "code", &code, "message", &message);
        if (code)
                f = fault_from_wire_name(code);
        if (!code_is_of_guest(f))
                f = status == 400 ? FAULT_INVALID_ARGS : FAULT_AGENT;
        call_fail(a, f, message ?: "The capsule's agent refused the request.");
}

/* Streams. */

static bool status_is_good(unsigned status) {
        return status >= 200 && status <= 299;
}

static int call_add_error(AgentCall *a, const void *data, size_t n) {
        char *error;

        if (a->n_error + n > ERROR_BODY_MAX)
                return -E2BIG;
        error = realloc(a->error, a->n_error + n);
        if (!error)
                return -ENOMEM;
        a->error = error;
        memcpy(error + a->n_error, data, n);
        a->n_error += n;
        return 0;
}

static void on_stream_headers(H2Stream *st, bool end, void *userdata) {
        AgentCall *a = h2_stream_userdata(st);
        unsigned status = h2_stream_status(st);

        if (a && a->handlers->on_response && status_is_good(status))
                a->handlers->on_response(a, status, a->userdata);
}

static void on_stream_data(H2Stream *st, const void *data, size_t n, void *userdata) {
        AgentCall *a = h2_stream_userdata(st);

        if (a && status_is_good(h2_stream_status(st))) {
                a->handlers->on_data(a, data, n, a->userdata);
                return;
        }
        h2_stream_consume(st, n);
        if (a && call_add_error(a, data, n) < 0)
                call_fail(a, FAULT_AGENT, "The capsule's agent told an error that is too long.");
}

static void on_stream_end(H2Stream *st, void *userdata) {
        AgentCall *a = h2_stream_userdata(st);

        if (!a)
                return;
        if (!status_is_good(h2_stream_status(st))) {
                call_finish_stream(a);
                call_fail_agent(a, h2_stream_status(st));
                return;
        }
        call_unlink(a);
        call_finish_stream(a);
        a->handlers->on_end(a, a->userdata);
}

static void on_stream_writable(H2Stream *st, void *userdata) {
        AgentCall *a = h2_stream_userdata(st);

        if (a && !a->ended && a->handlers->on_writable)
                a->handlers->on_writable(a, a->userdata);
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
static bool call_retry(AgentCall *a) {
        Channel *c = a->channel;

        if (a->n_refused++ >= REFUSALS_MAX)
                return false;
        if (a->written) {
                a->written = a->ended = false;
                if (!a->handlers->on_refused || !a->handlers->on_refused(a, a->userdata))
                        return false;
        }

        call_unlink(a);
        a->channel = c;
        a->waiting = true;
        a->link = &c->waiting;
        a->next = c->waiting;
        if (a->next)
                a->next->link = &a->next;
        else
                c->waiting_end = &a->next;
        c->waiting = a;
        c->n_waiting++;
        return true;
}

static void on_stream_close(H2Stream *st, uint32_t error, void *userdata) {
        AgentCall *a = h2_stream_userdata(st);
        Channel *c = userdata;
        bool again = false;

        if (a) {
                a->stream = NULL;
                again = error == H2_REFUSED_STREAM && call_retry(a);
                if (!again && error == H2_REFUSED_STREAM)
                        call_fail(a, FAULT_NO_CAPACITY, "Too many requests run in this capsule.");
                else if (error == H2_ENHANCE_YOUR_CALM)
                        call_fail(a, FAULT_AGENT,
                                  "The output was not read for too long, and others read it, too.");
                else if (!again)
                        call_fail(a, FAULT_AGENT, "The connection to the capsule was lost.");
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

/* WebSockets whose clients read nothing leave room for the other requests of the capsule. */
static const H2Limits conn_limits = { .windows = WS_PER_CAPSULE_MAX + 16 };

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
                r = h2_conn_new(c->table->event, fd, /* server= */ false, &conn_handlers, c, &conn_limits,
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

/* Opens the stream of the first call that waits. -EAGAIN: no stream is free. */
static int call_open_stream(AgentCall *a) {
        H2Session *session = h2_conn_session(a->channel->conn);
        Channel *c = a->channel;
        int r;

        r = h2_session_request(session, a->method, a->path, NULL, 0, /* end= */ a->ended, a, &a->stream);
        if (r < 0)
                return r;

        call_unlink(a);
        a->channel = c;
        a->next = c->running;
        a->link = &c->running;
        if (a->next)
                a->next->link = &a->next;
        c->running = a;
        return 0;
}

/* The connection takes no new streams (GOAWAY, or about to be closed): once per call another one is opened.
 */
static bool channel_reopen(Channel *c, AgentCall *a) {
        if (a->reopened)
                return false;
        a->reopened = true;
        c->conn = h2_conn_free(c->conn);
        return true;
}

static void channel_advance(Channel *c) {
        while (c->waiting && c->conn) {
                AgentCall *a = c->waiting;
                int r;

                r = call_open_stream(a);
                if (r == -EAGAIN)
                        return;
                if (r == -ENOTCONN && channel_reopen(c, a))
                        break;
                if (r < 0)
                        call_fail(a, FAULT_AGENT, "Failed to send the request to the capsule.");
                else if (!a->ended && a->handlers->on_writable)
                        a->handlers->on_writable(a, a->userdata);
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

int channel_call(ChannelTable *t, const CapsuleView *capsule, const AuthKey *key, const char *method,
                 const char *path, bool with_body, const AgentCallHandlers *handlers, void *userdata,
                 AgentCall **ret) {
        _cleanup_(agent_call_freep) AgentCall *a = NULL;
        Channel *c;
        int r;

        r = channel_get(t, capsule, key, &c);
        if (r < 0)
                return r;
        if (c->n_waiting >= EXEC_PENDING_MAX)
                return -ENOBUFS;

        a = malloc(sizeof(AgentCall));
        if (!a)
                return -ENOMEM;
        *a = (AgentCall) {
                .handlers = handlers,
                .userdata = userdata,
                .method = method,
                .path = strdup(path),
                .ended = !with_body,
        };
        if (!a->path)
                return -ENOMEM;

        a->channel = c;
        a->waiting = true;
        a->link = c->waiting_end;
        *c->waiting_end = a;
        c->waiting_end = &a->next;
        c->n_waiting++;

        /* With a connection at hand it is sent now; callbacks still come from the loop only. */
        if (!c->conn || c->waiting != a || call_open_stream(a) < 0) {
                r = event_defer(t->event, &c->defer, PRIORITY_VMM, on_defer, c);
                if (r < 0)
                        return r;
        }
        *ret = TAKE_PTR(a);
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
