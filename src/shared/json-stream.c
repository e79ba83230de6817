/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * JSON lines with fds on a Unix stream socket; see json-stream.h. The two dialects differ in how a call is
 * written and how an answer looks (json_message_*), all else is common. The lines themselves, with their
 * fds, are moved by line-io.c.
 *
 * The user may free the stream in any callback: every dispatcher pins it (n_pins) and looks at 'freed'
 * afterwards. The end is always told from the event loop: whoever finds the stream broken inside a call arms
 * the deferred source.
 */

#include <string.h>
#include <sys/epoll.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/event.h"
#include "shared/json-stream.h"
#include "shared/line-io.h"

struct JsonCall {
        JsonStream *stream; /* NULL: answered, or the stream is gone */
        JsonCall *next, *previous;
        uint64_t id;
        char *verb;
        JsonCallDone done;
        void *userdata;
        sd_event_source *timer;
        bool floating; /* nobody holds it: freed after done */
};

struct JsonStream {
        sd_event *event;
        sd_event_source *io, *defer;
        JsonDialect dialect;
        const JsonStreamHandlers *handlers;
        void *userdata;
        LineIO lines;
        bool wants_out;
        bool ended; /* on_closed has run, or is about to (error) */
        bool freed;
        unsigned n_pins;
        int error;

        JsonCall *calls;
        unsigned n_calls;
        uint64_t next_id;
};

/* ---- calls ---------------------------------------------------------------------------------- */

static void call_unlink(JsonCall *c) {
        JsonStream *s = c->stream;

        if (!s)
                return;

        if (c->next)
                c->next->previous = c->previous;
        if (c->previous)
                c->previous->next = c->next;
        else
                s->calls = c->next;
        s->n_calls--;
        c->stream = NULL;
}

JsonCall* json_call_free(JsonCall *c) {
        if (!c)
                return NULL;

        call_unlink(c);
        event_source_freep(&c->timer);
        free(c->verb);
        free(c);
        return NULL;
}

/* The one end of every call. Its owner frees it in done, hence what is needed later is copied before. */
static void call_complete(JsonCall *c, int r, json_t *result, int *fds, size_t n_fds, const Fault *fault) {
        bool floating = c->floating;

        call_unlink(c);
        event_source_freep(&c->timer);
        c->done(c, r, result, fds, n_fds, fault, c->userdata);
        if (floating)
                json_call_free(c);
}

static void call_fail(JsonCall *c, int r, FaultCode code, const char *text) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        (void) fault_set(&fault, code, "%s: %s", c->verb, text);
        call_complete(c, r, NULL, NULL, 0, &fault);
}

static int on_call_timeout(sd_event_source *source, uint64_t usec, void *userdata) {
        call_fail(userdata, -ETIMEDOUT, FAULT_TIMEOUT, "no answer in time.");
        return 0;
}

static int call_new(JsonStream *s, const char *verb, uint64_t timeout_usec, JsonCallDone done,
                    void *userdata, JsonCall **ret) {
        _cleanup_(json_call_freep) JsonCall *c = NULL;
        int r;

        c = malloc(sizeof(JsonCall));
        if (!c)
                return -ENOMEM;

        *c = (JsonCall) { .id = ++s->next_id, .done = done, .userdata = userdata };

        c->verb = strdup(verb);
        if (!c->verb)
                return -ENOMEM;

        r = event_timer(s->event, &c->timer, timeout_usec, PRIORITY_VMM, on_call_timeout, c, "json-call");
        if (r < 0)
                return r;

        *ret = TAKE_PTR(c);
        return 0;
}

static void call_link(JsonStream *s, JsonCall *c) {
        c->stream = s;
        c->next = s->calls;
        if (c->next)
                c->next->previous = c;
        s->calls = c;
        s->n_calls++;
}

static JsonCall* call_find(JsonStream *s, uint64_t id) {
        for (JsonCall *c = s->calls; c; c = c->next)
                if (c->id == id)
                        return c;

        return NULL;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void stream_release(JsonStream *s) {
        if (s->n_pins > 0 || !s->freed)
                return;

        sd_event_unref(s->event);
        free(s);
}

static void stream_unpin(JsonStream *s) {
        s->n_pins--;
        stream_release(s);
}

/* From the event loop only. */
static void stream_close(JsonStream *s, int error) {
        s->ended = true;
        event_source_freep(&s->io);
        event_source_freep(&s->defer);

        s->n_pins++;
        while (s->calls && !s->freed)
                call_fail(s->calls, -ECONNRESET, FAULT_AGENT, "the connection was closed.");
        if (!s->freed && s->handlers->on_closed)
                s->handlers->on_closed(s, error, s->userdata);
        stream_unpin(s);
}

static int on_defer(sd_event_source *source, void *userdata) {
        JsonStream *s = userdata;

        stream_close(s, s->error);
        return 0;
}

/* From anywhere: ends the stream in the next turn of the loop. */
static void stream_fail(JsonStream *s, int error) {
        if (s->ended)
                return;

        s->ended = true;
        s->error = error;
        event_source_freep(&s->io);
        (void) event_defer(s->event, &s->defer, PRIORITY_VMM, on_defer, s);
}

JsonStream* json_stream_free(JsonStream *s) {
        if (!s || s->freed)
                return NULL;

        s->freed = s->ended = true;
        event_source_freep(&s->io);
        event_source_freep(&s->defer);
        while (s->calls) {
                JsonCall *c = s->calls;

                call_unlink(c);
                event_source_freep(&c->timer);
                if (c->floating)
                        json_call_free(c);
        }
        line_io_done(&s->lines);
        stream_release(s);
        return NULL;
}

/* ---- received messages ---------------------------------------------------------------------- */

static int message_id(json_t *message, uint64_t *ret) {
        json_t *id = json_object_get(message, "id");

        if (!json_is_integer(id) || json_integer_value(id) < 0)
                return -EPROTO;

        *ret = (uint64_t) json_integer_value(id);
        return 0;
}

static int dispatch_answer(JsonStream *s, json_t *message, json_t *result, json_t *error, LineFds *fds) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        const char *text;
        FaultCode code;
        JsonCall *c;
        uint64_t id;
        int r;

        r = message_id(message, &id);
        if (r < 0)
                return r;

        c = call_find(s, id);
        if (!c)
                return 0; /* cancelled or timed out meanwhile */

        if (result) {
                call_complete(c, 0, result, fds->fds, fds->n, NULL);
                return 0;
        }

        text = json_string_value(
                        json_object_get(error, s->dialect == JSON_DIALECT_QMP ? "desc" : "message"));
        code = s->dialect == JSON_DIALECT_QMP
                               ? FAULT_AGENT
                               : fault_from_wire_name(json_string_value(json_object_get(error, "code")));
        (void) fault_set(&fault, code, "%s", text ?: "Unknown error.");
        call_complete(c, -EREMOTEIO, NULL, NULL, 0, &fault);
        return 0;
}

static int dispatch_request(JsonStream *s, json_t *message, const char *verb, LineFds *fds) {
        uint64_t id;
        int r;

        r = message_id(message, &id);
        if (r < 0)
                return r;
        if (!s->handlers->on_request)
                return -EPROTO;

        s->handlers->on_request(s, id, verb, message, fds->fds, fds->n, s->userdata);
        return 0;
}

static int dispatch_message(JsonStream *s, json_t *message, LineFds *fds) {
        const char *verb = json_string_value(json_object_get(message, "verb"));
        const char *event = json_string_value(json_object_get(message, "event"));
        json_t *error = json_object_get(message, "error"), *result;

        if (s->dialect == JSON_DIALECT_QMP) {
                result = json_object_get(message, "return");
                if (json_object_get(message, "QMP"))
                        event = "greeting";
        } else {
                result = json_object_get(message, "ok");
                if (verb)
                        return dispatch_request(s, message, verb, fds);
        }

        if (!event && (result || json_is_object(error))) /* an event may tell of an error, too */
                return dispatch_answer(s, message, result, error, fds);
        if (!event)
                return -EPROTO;

        if (s->handlers->on_event)
                s->handlers->on_event(s, event, message, fds->fds, fds->n, s->userdata);
        return 0;
}

static int on_line(const char *line, size_t n, LineFds *fds, void *userdata) {
        _cleanup_json_ json_t *message = NULL;
        JsonStream *s = userdata;
        int r;

        r = json_parse_text(line, n, &message, NULL);
        if (r < 0)
                return r == -ENOMEM ? r : -EPROTO;

        r = dispatch_message(s, message, fds);
        if (r < 0)
                return r;

        return s->ended ? -ECANCELED : 0;
}

static int stream_flush(JsonStream *s) {
        bool want;
        int r;

        r = line_io_flush(&s->lines);
        if (r < 0)
                return r;

        want = line_io_n_queued(&s->lines) > 0;
        if (want == s->wants_out || !s->io)
                return 0;

        s->wants_out = want;
        return sd_event_source_set_io_events(s->io, EPOLLIN | (want ? EPOLLOUT : 0));
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        JsonStream *s = userdata;
        bool eof = false;
        int r = 0;

        s->n_pins++;
        if (revents & EPOLLOUT)
                r = stream_flush(s);
        if (r >= 0 && (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
                r = line_io_read(&s->lines, on_line, s);
                eof = r == 0;
        }

        /* what ended meanwhile is told by the deferred source, or not at all */
        if (!s->ended && (r < 0 || eof))
                stream_close(s, r);
        stream_unpin(s);
        return 0;
}

int json_stream_new(sd_event *e, int fd, JsonDialect dialect, size_t message_max,
                    const JsonStreamHandlers *handlers, void *userdata, JsonStream **ret) {
        _cleanup_(json_stream_freep) JsonStream *s = NULL;
        int r;

        s = malloc(sizeof(JsonStream));
        if (!s)
                return -ENOMEM;

        *s = (JsonStream) {
                .event = sd_event_ref(e),
                .dialect = dialect,
                .handlers = handlers,
                .userdata = userdata,
                .lines = LINE_IO_NULL,
        };

        r = event_io(e, &s->io, fd, EPOLLIN, PRIORITY_VMM, on_io, s, "json-stream");
        if (r < 0)
                return r;

        r = line_io_init(&s->lines, fd, message_max > 0 ? message_max : JSON_MESSAGE_MAX);
        if (r < 0)
                return r;

        *ret = TAKE_PTR(s);
        return 0;
}

int json_stream_fd(const JsonStream *s) {
        return s->lines.fd;
}

/* ---- sent messages -------------------------------------------------------------------------- */

static int stream_send(JsonStream *s, json_t *message, const int *fds, size_t n_fds) {
        _cleanup_free_ char *text = NULL;
        int r;

        if (s->ended)
                return -ENOTCONN;
        if (!message)
                return -ENOMEM;

        text = json_dumps(message, JSON_COMPACT);
        if (!text)
                return -ENOMEM;

        r = line_io_queue(&s->lines, text, strlen(text), fds, n_fds);
        if (r < 0) {
                if (r == -ENOBUFS) /* a peer that does not read */
                        stream_fail(s, r);
                return r;
        }

        r = stream_flush(s);
        if (r < 0)
                stream_fail(s, r);
        return 0;
}

/* A copy of body (NULL: empty) with one more member; steals value. */
static json_t* object_with(json_t *body, const char *name, json_t *value) {
        json_t *object;

        object = body ? json_copy(body) : json_object();
        if (!object || json_object_set_new(object, name, value) < 0) {
                json_decref(object);
                return NULL;
        }

        return object;
}

int json_stream_call(JsonStream *s, const char *verb, json_t *body, const int *fds, size_t n_fds,
                     uint64_t timeout_usec, JsonCallDone done, void *userdata, JsonCall **ret) {
        _cleanup_(json_call_freep) JsonCall *c = NULL;
        _cleanup_json_ json_t *message = NULL;
        int r;

        if (s->ended)
                return -ENOTCONN;
        if (s->n_calls >= CALLS_MAX)
                return -ENOBUFS;

        r = call_new(s, verb, timeout_usec, done, userdata, &c);
        if (r < 0)
                return r;

        if (s->dialect == JSON_DIALECT_QMP) {
                message = object_with(NULL, "execute", json_string(verb));
                if (message && body && json_object_set(message, "arguments", body) < 0)
                        return -ENOMEM;
        } else
                message = object_with(body, "verb", json_string(verb));
        if (!message || json_object_set_new(message, "id", json_integer((json_int_t) c->id)) < 0)
                return -ENOMEM;

        r = stream_send(s, message, fds, n_fds);
        if (r < 0)
                return r;

        call_link(s, c);
        c->floating = !ret;
        if (ret)
                *ret = c;
        TAKE_PTR(c);
        return 0;
}

int json_stream_reply(JsonStream *s, uint64_t id, json_t *ok, const int *fds, size_t n_fds) {
        _cleanup_json_ json_t *message = NULL;

        assert(s->dialect == JSON_DIALECT_CONTROL);

        message = json_pack("{s:I, s:o}", "id", (json_int_t) id, "ok", ok ? json_incref(ok) : json_object());
        return stream_send(s, message, fds, n_fds);
}

int json_stream_reply_fault(JsonStream *s, uint64_t id, const Fault *fault) {
        _cleanup_json_ json_t *message = NULL;

        assert(s->dialect == JSON_DIALECT_CONTROL);
        assert(fault_is_set(fault));

        message = json_pack("{s:I, s:{s:s, s:s}}", "id", (json_int_t) id, "error", "code",
                            fault_wire_name(fault->code), "message", strempty(fault->message));
        return stream_send(s, message, NULL, 0);
}

int json_stream_event(JsonStream *s, const char *name, json_t *body) {
        _cleanup_json_ json_t *message = NULL;

        assert(s->dialect == JSON_DIALECT_CONTROL);

        message = object_with(body, "event", json_string(name));
        return stream_send(s, message, NULL, 0);
}
