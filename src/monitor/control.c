/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "monitor/control.h"
#include "monitor/monitor.h"
#include "shared/event.h"
#include "shared/json-stream.h"
#include "shared/protocol.h"

typedef struct ControlClient {
        Control *control;   /* weak: owns us */
        JsonStream *stream; /* NULL: free place */
} ControlClient;

struct ControlReply {
        Control *control;      /* weak: frees us before it goes */
        ControlClient *client; /* weak; NULL: gone */
        uint64_t id;
        ControlReply *next;
};

struct Control {
        sd_event *event;  /* weak: outlives us */
        Monitor *monitor; /* weak: owns us */
        int listen_fd;
        sd_event_source *listen_source;
        ControlClient clients[CONTROL_CLIENTS_MAX];
        ControlReply *replies;
};

/* Replies */

static ControlReply* reply_new(ControlClient *client, uint64_t id) {
        ControlReply *r = malloc(sizeof(ControlReply));

        if (!r)
                return NULL;
        *r = (ControlReply) {
                .control = client->control, .client = client, .id = id, .next = client->control->replies
        };
        client->control->replies = r;
        return r;
}

static void reply_free(ControlReply *r) {
        for (ControlReply **p = &r->control->replies; *p; p = &(*p)->next)
                if (*p == r) {
                        *p = r->next;
                        break;
                }
        free(r);
}

void control_reply_ok(ControlReply *r, json_t *ok, const int *fds, size_t n_fds) {
        if (r->client) {
                int k = json_stream_reply(r->client->stream, r->id, ok, fds, n_fds);

                if (k < 0)
                        (void) log_warning_errno(k, "Failed to answer on the control socket, ignoring: %m");
        }
        reply_free(r);
}

void control_reply_fault(ControlReply *r, const Fault *fault) {
        if (r->client)
                (void) json_stream_reply_fault(r->client->stream, r->id, fault);
        reply_free(r);
}

const void* control_reply_peer(const ControlReply *r) {
        return r->client;
}

/* Requests */

static void on_request(JsonStream *s, uint64_t id, const char *verb, json_t *message, int *fds, size_t n_fds,
                       void *userdata) {
        static const struct {
                const char *name;
                void (*run)(Monitor *m, json_t *message, int *fds, size_t n_fds, ControlReply *reply);
        } verbs[] = {
                { CONTROL_VERB_DESCRIBE, monitor_verb_describe },
                { CONTROL_VERB_START, monitor_verb_start },
                { CONTROL_VERB_POWEROFF, monitor_verb_poweroff },
                { CONTROL_VERB_KILL, monitor_verb_kill },
                { CONTROL_VERB_EXEC, monitor_verb_exec },
                { CONTROL_VERB_ATTACH, monitor_verb_attach },
                { CONTROL_VERB_REQUEST, monitor_verb_request },
                { CONTROL_VERB_CANCEL, monitor_verb_cancel },
                { CONTROL_VERB_CONSOLE, monitor_verb_console },
        };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        ControlClient *client = userdata;
        ControlReply *reply = reply_new(client, id);

        if (!reply) {
                (void) fault_set(&fault, FAULT_NO_MEMORY, "Out of memory.");
                (void) json_stream_reply_fault(s, id, &fault);
                return;
        }
        for (size_t i = 0; i < ELEMENTSOF(verbs); i++)
                if (streq(verbs[i].name, verb)) {
                        verbs[i].run(client->control->monitor, message, fds, n_fds, reply);
                        return;
                }
        (void) fault_set(&fault, FAULT_INVALID_ARGS, "There is no such verb.");
        control_reply_fault(reply, &fault);
}

static void on_client_event(JsonStream *s, const char *name, json_t *message, int *fds, size_t n_fds,
                            void *userdata) {
        log_debug("Event '%s' of a control client, ignoring", name);
}

static void on_client_closed(JsonStream *s, int error, void *userdata) {
        ControlClient *client = userdata;

        for (ControlReply *r = client->control->replies; r; r = r->next)
                if (r->client == client)
                        r->client = NULL;
        client->stream = json_stream_free(client->stream);
        monitor_peer_gone(client->control->monitor, client);
}

static const JsonStreamHandlers client_handlers = {
        .on_request = on_request,
        .on_event = on_client_event,
        .on_closed = on_client_closed,
};

int control_add_client(Control *c, int fd) {
        for (size_t i = 0; i < ELEMENTSOF(c->clients); i++)
                if (!c->clients[i].stream)
                        return json_stream_new(c->event, fd, JSON_DIALECT_CONTROL, JSON_MESSAGE_MAX,
                                               &client_handlers, &c->clients[i], &c->clients[i].stream);
        return -EMFILE;
}

static int on_listen(sd_event_source *s, int fd, uint32_t revents, void *userdata) {
        _cleanup_close_ int client = -EBADF;
        uid_t uid;
        int r;

        client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client < 0)
                return 0;
        r = peer_uid(client, &uid);
        if (r >= 0 && uid != 0)
                r = -EPERM;
        if (r >= 0)
                r = control_add_client(userdata, client);
        if (r < 0) {
                (void) log_warning_errno(r, "Refused a control client: %m");
                return 0;
        }
        (void) TAKE_FD(client);
        return 0;
}

bool control_has_clients(const Control *c) {
        for (size_t i = 0; c && i < ELEMENTSOF(c->clients); i++)
                if (c->clients[i].stream)
                        return true;
        return false;
}

void control_broadcast(Control *c, const char *event, json_t *body) {
        if (!c)
                return;
        for (size_t i = 0; i < ELEMENTSOF(c->clients); i++)
                if (c->clients[i].stream)
                        (void) json_stream_event(c->clients[i].stream, event, body);
}

int control_new(sd_event *e, int listen_fd, Monitor *m, Control **ret) {
        Control *c;
        int r;

        c = malloc(sizeof(Control));
        if (!c)
                return -ENOMEM;
        *c = (Control) { .event = e, .monitor = m, .listen_fd = -EBADF };
        for (size_t i = 0; i < ELEMENTSOF(c->clients); i++)
                c->clients[i].control = c;

        if (listen_fd >= 0) {
                r = fd_nonblock(listen_fd, true);
                if (r >= 0)
                        r = event_io(e, &c->listen_source, listen_fd, EPOLLIN, PRIORITY_VMM, on_listen, c,
                                     "control-listen");
                if (r < 0) {
                        (void) control_free(c);
                        return r;
                }
                c->listen_fd = listen_fd;
        }
        *ret = c;
        return 0;
}

Control* control_free(Control *c) {
        if (!c)
                return NULL;
        c->listen_source = event_source_free(c->listen_source);
        for (size_t i = 0; i < ELEMENTSOF(c->clients); i++)
                c->clients[i].stream = json_stream_free(c->clients[i].stream);
        while (c->replies)
                reply_free(c->replies);
        (void) close_fd(c->listen_fd);
        free(c);
        return NULL;
}
