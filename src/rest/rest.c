/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * libmicrohttpd behind the gate. One pump() runs it: after the gate relayed something, when its epoll fd is
 * readable, and deferred after an answer that came later. A request is decided (route, key) at its head by
 * the gate's question; libmicrohttpd sees authenticated requests only.
 */

#include <microhttpd.h>
#include <string.h>
#include <sys/un.h>

#include "basic/fd.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "rest/rest.h"
#include "shared/event.h"
#include "shared/json-field.h"

#define PUMP_ROUNDS_MAX 16U

void rest_server_pump(RestServer *s) {
        MHD_UNSIGNED_LONG_LONG timeout_msec;
        unsigned rounds = 0;

        if (s->pumping) {
                s->pump_again = true;
                return;
        }

        s->pumping = true;
        do {
                s->pump_again = false;
                (void) MHD_run(s->mhd);
                gate_flush(s->gate);
                if (MHD_get_timeout(s->mhd, &timeout_msec) == MHD_YES && timeout_msec == 0)
                        s->pump_again = true;
        } while (s->pump_again && ++rounds < PUMP_ROUNDS_MAX);
        s->pumping = false;

        if (s->pump_again)
                (void) sd_event_source_set_enabled(s->pump_source, SD_EVENT_ONESHOT);
}

static int on_pump(sd_event_source *source, void *userdata) {
        rest_server_pump(userdata);
        return 0;
}

static int on_mhd_io(sd_event_source *source, int fd, uint32_t revents, void *userdata) {
        rest_server_pump(userdata);
        return 0;
}

/* Requests. */

RestRequest* rest_request_free(RestRequest *q) {
        if (!q)
                return NULL;

        if (q->operation)
                q->operation_free(TAKE_PTR(q->operation));
        auth_call_free(q->auth_call);
        bus_call_free(q->fetch);
        event_source_free(q->deadline);
        if (q->wait) {
                q->server->n_waiting--;
                bus_wait_free(q->wait);
        }
        auth_key_unref(q->key);
        for (size_t i = 0; i < ROUTE_ARGS_MAX; i++)
                free(q->args[i]);
        free(q->body);
        free(q->content_type);
        free(q->query);
        free(q);
        return NULL;
}

void rest_request_wait(RestRequest *q, void *operation, void (*operation_free)(void *operation)) {
        assert(!q->operation);
        q->operation = operation;
        q->operation_free = operation_free;
}

int rest_agent_call(RestRequest *q, const char *method, const char *path, bool with_body,
                    const AgentCallHandlers *handlers, void *userdata, AgentCall **ret, Fault *reterr) {
        CapsuleView *v;
        int r;

        if (strlen(path) > AGENT_REQUEST_LEN_MAX)
                return fault_set(reterr, FAULT_INVALID_ARGS, "The paths are too long together.");
        r = rest_request_running_capsule(q, &v, reterr);
        if (r < 0)
                return r;

        r = channel_call(q->server->channels, v, q->key, method, path, with_body, handlers, userdata, ret);
        if (r == -ENOBUFS)
                return fault_set(reterr, FAULT_NO_CAPACITY, "Too many requests wait for this capsule.");
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to send the request to the capsule");
        return 0;
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        RestRequest *q = userdata;

        if (q->answered || q->gone)
                return 0;
        if (q->operation)
                q->operation_free(TAKE_PTR(q->operation));
        (void) fault_set(&fault, FAULT_TIMEOUT, "The capsule's agent did not answer in time.");
        rest_answer_fault(q, &fault);
        return 0;
}

int rest_request_set_deadline(RestRequest *q, uint64_t usec) {
        return event_timer(q->server->event, &q->deadline, usec, PRIORITY_CLIENT, on_deadline, q,
                           "request-deadline");
}

int rest_request_json(RestRequest *q, json_t **ret, Fault *reterr) {
        if (q->n_body == 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "invalid JSON body: it is empty.");
        return json_parse_text(q->body, q->n_body, ret, reterr);
}

int rest_request_capsule(RestRequest *q, CapsuleView **ret, Fault *reterr) {
        CapsuleView *v;

        if (!id_is_valid("cl", q->args[0]))
                return fault_set(reterr, FAULT_INVALID_ARGS, "invalid capsule ID");

        v = bus_client_capsule(q->server->bus, q->args[0]);
        if (!v || !streq_ptr(v->team, q->key->team))
                return fault_set(reterr, FAULT_NOT_FOUND, "capsule not found");
        *ret = v;
        return 0;
}

int rest_request_running_capsule(RestRequest *q, CapsuleView **ret, Fault *reterr) {
        CapsuleView *v;
        int r;

        r = rest_request_capsule(q, &v, reterr);
        if (r < 0)
                return r;
        if (!capsule_view_is_running(v))
                return fault_set(reterr, FAULT_INVALID_STATE, "capsule is not running (status: %s)",
                                 capsule_status_from_state(v->state));
        *ret = v;
        return 0;
}

/* Answers. */

void rest_answer_response(RestRequest *q, unsigned status, struct MHD_Response *response_consume) {
        enum MHD_Result queued;

        assert(!q->answered && !q->route->direct);
        q->answered = true;
        if (!response_consume) {
                /* out of memory: the connection ends */
                queued = MHD_NO;
        } else {
                queued = MHD_queue_response(q->connection, status, response_consume);
                MHD_destroy_response(response_consume);
        }
        if (queued != MHD_YES)
                log_debug("Failed to queue an answer with status %u.", status);
        if (!q->suspended)
                return;

        q->suspended = false;
        MHD_resume_connection(q->connection);
        (void) sd_event_source_set_enabled(q->server->pump_source, SD_EVENT_ONESHOT);
}

void rest_answer_begin(RestRequest *q, unsigned status, const char *type) {
        assert(!q->answered && q->route->direct);
        q->answered = true;
        gate_answer_begin(q->conn, status, type);
}

/* text NULL: out of memory, the connection ends */
static void answer_direct(RestRequest *q, unsigned status, const char *type, const char *text) {
        assert(!q->answered);
        q->answered = true;
        if (text)
                gate_answer(q->conn, status, type, text, strlen(text));
        else
                gate_answer_abort(q->conn);
}

static struct MHD_Response* json_response(const char *json, enum MHD_ResponseMemoryMode mode) {
        struct MHD_Response *response;

        response = MHD_create_response_from_buffer(strlen(json), (void *) json, mode);
        if (response)
                (void) MHD_add_response_header(response, "Content-Type", "application/json");
        return response;
}

void rest_answer_json(RestRequest *q, unsigned status, const char *json) {
        if (q->route->direct) {
                answer_direct(q, status, "application/json", json);
                return;
        }
        rest_answer_response(q, status, json ? json_response(json, MHD_RESPMEM_MUST_COPY) : NULL);
}

void rest_answer_json_object(RestRequest *q, unsigned status, json_t *object_consume) {
        struct MHD_Response *response = NULL;
        char *json;

        json = object_consume ? json_dumps(object_consume, JSON_COMPACT) : NULL;
        json_decref(object_consume);
        if (q->route->direct) {
                answer_direct(q, status, "application/json", json);
                free(json);
                return;
        }
        if (json) {
                response = json_response(json, MHD_RESPMEM_MUST_FREE);
                if (!response)
                        free(json);
        }
        rest_answer_response(q, status, response);
}

void rest_answer_empty(RestRequest *q, unsigned status) {
        if (q->route->direct)
                answer_direct(q, status, NULL, "");
        else
                rest_answer_response(q, status,
                                     MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT));
}

void rest_answer_fault(RestRequest *q, const Fault *fault) {
        FaultCode code = fault_is_set(fault) ? fault->code : FAULT_INTERNAL;
        const char *message = fault->message ?: "An internal error occurred.";
        json_t *o;

        o = json_pack("{s:{s:s,s:s}}", "error", "code", fault_rest_code(code), "message", message);
        if (!o)
                o = json_pack("{s:{s:s,s:s}}", "error", "code", fault_rest_code(code), "message",
                              "(not printable)");
        rest_answer_json_object(q, fault_http_status(code), o);
}

/* libmicrohttpd calls. */

int rest_request_add_body(RestRequest *q, const char *data, size_t n) {
        if (q->n_body + n + 1 > q->n_body_allocated) {
                size_t twice = MIN(q->n_body_allocated * 2, (size_t) q->route->body_max + 1);
                size_t allocate = MAX(q->n_body + n + 1, twice);
                char *body = realloc(q->body, allocate);

                if (!body)
                        return -ENOMEM;
                q->body = body;
                q->n_body_allocated = allocate;
        }
        memcpy(q->body + q->n_body, data, n);
        q->n_body += n;
        q->body[q->n_body] = '\0';
        return 0;
}

static void request_run(RestRequest *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        int r;

        q->begin_usec = now_usec(CLOCK_MONOTONIC);
        r = q->route->handler(q, &fault);
        if (r < 0 && !q->answered)
                rest_answer_fault(q, &fault);
}

static void on_fetched(BusCall *call, int r, sd_bus_message *reply, const Fault *fault, void *userdata) {
        RestRequest *q = userdata;

        q->fetch = bus_call_free(q->fetch);
        if (r < 0 && fault->code != FAULT_NOT_FOUND)
                rest_answer_fault(q, fault);
        else
                request_run(q);
}

/*
 * Asks wrennd about a capsule that is not in the copy: it may have ended before we came. Foreign ones are
 * asked about, too, so that they take as long as unknown ones. Returns false when there is nothing to ask.
 */
static bool request_fetch(RestRequest *q) {
        CapsuleView *v;

        if (!q->route->capsule || !id_is_valid("cl", q->args[0]))
                return false;
        v = bus_client_capsule(q->server->bus, q->args[0]);
        if (v && streq_ptr(v->team, q->key->team))
                return false;
        return bus_client_fetch(q->server->bus, q->args[0], on_fetched, q, &q->fetch) >= 0;
}

void rest_request_start(RestRequest *q) {
        q->handled = true;
        if (!request_fetch(q))
                request_run(q);
}

static enum MHD_Result on_request(void *userdata, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data, size_t *n_data,
                                  void **request) {
        RestRequest *q = *request;

        if (!q) {
                const union MHD_ConnectionInfo *info =
                                MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

                q = info && info->socket_context ? gate_conn_request(info->socket_context) : NULL;
                if (!q || q->connection)
                        return MHD_NO;
                q->connection = connection;
                *request = q;
                return MHD_YES;
        }
        if (*n_data > 0) {
                size_t n = *n_data;

                *n_data = 0;
                return rest_request_add_body(q, data, n) < 0 ? MHD_NO : MHD_YES;
        }
        if (q->handled)
                return q->answered ? MHD_YES : MHD_NO;

        rest_request_start(q);
        if (!q->answered) {
                q->suspended = true;
                MHD_suspend_connection(connection);
        }
        return MHD_YES;
}

static void on_completed(void *userdata, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode code) {
        RestRequest *q = *request;
        GateConn *conn;

        if (!q)
                return;
        *request = NULL;
        conn = q->conn;
        rest_request_free(q);
        gate_conn_completed(conn);
}

static void on_connection(void *userdata, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code) {
        RestServer *s = userdata;

        if (code == MHD_CONNECTION_NOTIFY_STARTED)
                *context = s->attaching ? gate_conn_ref(s->attaching) : NULL;
        else
                *context = gate_conn_unref(*context);
}

static size_t on_unescape(void *userdata, struct MHD_Connection *connection, char *text) {
        return strlen(text); /* routes decode their own arguments */
}

/* What the gate asks. */

static int on_gate_attach(GateConn *c, int fd, void *userdata) {
        RestServer *s = userdata;
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        enum MHD_Result added;

        s->attaching = c;
        added = MHD_add_connection(s->mhd, fd, (struct sockaddr *) &address,
                                   sizeof(address)); /* closes fd on failure */
        s->attaching = NULL;
        return added == MHD_YES ? 0 : -ENOMEM;
}

static void on_gate_relayed(GateConn *c, void *userdata) {
        rest_server_pump(userdata);
}

static void on_gate_gone(GateConn *c, void *userdata) {
        RestRequest *q = gate_conn_request(c);

        if (!q->connection) {
                rest_request_free(q); /* libmicrohttpd has not seen it */
                return;
        }

        q->gone = true;
        q->fetch = bus_call_free(q->fetch);
        if (q->operation)
                q->operation_free(TAKE_PTR(q->operation));
        if (q->suspended && !q->answered)
                rest_answer_empty(q, 500); /* nobody reads it; it ends the suspension */
}

static void on_gate_taken(GateConn *c, int fd, const char *data, size_t n, void *userdata) {
        rest_websocket_begin(gate_conn_request(c), fd, data, n);
}

static void on_gate_end(GateConn *c, bool now, void *userdata) {
        RestRequest *q = gate_conn_request(c);

        if (now)
                ws_abort(q->websocket);
        else
                ws_close(q->websocket, WS_CODE_GOING_AWAY, "The service is being restarted.");
}

static int refuse_route(int r, unsigned allowed, GateRefusal *ret) {
        if (r == -EOPNOTSUPP) {
                route_format_allow(allowed, ret->header, sizeof(ret->header));
                return fault_set(&ret->fault, FAULT_METHOD_NOT_ALLOWED, "This method does not exist here.");
        }
        if (r == -ENOENT)
                return fault_set(&ret->fault, FAULT_NOT_FOUND, "There is nothing at this path.");
        if (r == -EINVAL)
                return fault_set(&ret->fault, FAULT_INVALID_ARGS, "The path is not valid UTF-8.");
        return fault_set_errno(&ret->fault, r, "Failed to find the route");
}

static GateVerdict request_admit(RestRequest *q, GateRefusal *ret);

static void request_settle(RestRequest *q) {
        _cleanup_(gate_refusal_done) GateRefusal refusal = {};
        GateConn *c = q->conn;

        switch (request_admit(q, &refusal)) {
        case GATE_WAIT:
                break;
        case GATE_PASS:
                gate_conn_pass(c, q->route->body_max);
                break;
        case GATE_TAKE:
                gate_conn_take(c);
                break;
        case GATE_REFUSE:
                gate_conn_set_request(c, NULL);
                rest_request_free(q);
                gate_conn_refuse(c, &refusal);
                break;
        }
}

static void request_refuse(RestRequest *q, const Fault *fault) {
        _cleanup_(gate_refusal_done) GateRefusal refusal = {};
        GateConn *c = q->conn;

        (void) fault_set(&refusal.fault, fault->code, "%s", fault->message ?: "");
        gate_conn_set_request(c, NULL);
        rest_request_free(q);
        gate_conn_refuse(c, &refusal);
}

static void on_waited(BusWait *w, int r, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        RestRequest *q = userdata;

        q->wait = bus_wait_free(q->wait);
        q->server->n_waiting--;
        if (r >= 0) {
                request_settle(q);
                return;
        }
        (void) fault_set(&fault, FAULT_BACKEND_UNAVAILABLE, "The wrenn daemon does not answer.");
        request_refuse(q, &fault);
}

static void on_authenticated(AuthCall *call, int r, AuthKey *key, const Fault *fault, void *userdata) {
        RestRequest *q = userdata;

        q->auth_call = auth_call_free(q->auth_call);
        if (r < 0) {
                request_refuse(q, fault);
                return;
        }
        q->key = auth_key_ref(key);
        request_settle(q);
}

static void session_free(void *session) {
        AuthKey *k = session;

        k->n_connections--;
        auth_key_unref(k);
}

/* The connection is counted for its key. */
static int request_enter_session(RestRequest *q, Fault *reterr) {
        if (gate_conn_session(q->conn) == q->key)
                return 0;
        if (q->key->n_connections >= q->server->config.connections_per_key_max)
                return fault_set(reterr, FAULT_QUOTA_EXCEEDED, "Too many connections with this key.");

        q->key->n_connections++;
        gate_conn_set_session(q->conn, auth_key_ref(q->key), session_free);
        return 0;
}

/* The key is good: what is wrong with the upgrade may be told. */
static GateVerdict request_upgrade(RestRequest *q, GateRefusal *ret) {
        if (!id_is_valid("cl", q->args[0])) {
                (void) fault_set(&ret->fault, FAULT_INVALID_ARGS, "invalid capsule ID");
                return GATE_REFUSE;
        }
        if (q->upgrade_reject == HTTP_REJECT_NONE)
                return GATE_TAKE;

        ret->reject = q->upgrade_reject;
        if (ret->reject == HTTP_REJECT_UPGRADE)
                strcpy(ret->header, WS_UPGRADE_HEADERS);
        return GATE_REFUSE;
}

/* The steps before a request may go on, each of which may have to wait: wrennd is there, the key is known.
 */
static GateVerdict request_admit(RestRequest *q, GateRefusal *ret) {
        RestServer *s = q->server;
        uint64_t now = 0;
        int r;

        if (!bus_client_is_synced(s->bus)) {
                if (s->n_waiting >= REQUESTS_WAITING_MAX ||
                    bus_client_wait(s->bus, on_waited, q, &q->wait) < 0) {
                        (void) fault_set(&ret->fault, FAULT_BACKEND_UNAVAILABLE,
                                         "The wrenn daemon does not answer.");
                        return GATE_REFUSE;
                }
                s->n_waiting++;
                return GATE_WAIT;
        }

        if (!q->key) {
                (void) sd_event_now(s->event, CLOCK_BOOTTIME, &now);
                r = auth_lookup(s->auth, q->key_hash, gate_conn_peer(q->conn), now, on_authenticated, q,
                                &q->key, &q->auth_call, &ret->fault);
                if (r < 0)
                        return GATE_REFUSE;
                if (r == 0)
                        return GATE_WAIT;
        }

        if (request_enter_session(q, &ret->fault) < 0)
                return GATE_REFUSE;
        if (q->route->websocket)
                return request_upgrade(q, ret);
        if (q->route->direct)
                gate_conn_serve(q->conn, &rest_service, q->route->upload);
        return GATE_PASS;
}

static int keep_slice(const char *data, HttpSlice s, char **ret) {
        if (s.n == 0)
                return 0;
        *ret = strndup(data + s.offset, s.n);
        return *ret ? 0 : -ENOMEM;
}

/* What is needed of the head once it is gone. */
static int request_keep_head(RestRequest *q, const HttpHead *head, const char *data) {
        HttpSlice query = {};

        if (head->target.n > head->path.n + 1) /* behind the '?' */
                query = (HttpSlice) { head->path.offset + head->path.n + 1,
                                      head->target.n - head->path.n - 1 };
        if (keep_slice(data, query, &q->query) < 0)
                return -ENOMEM;
        return q->route->upload ? keep_slice(data, head->content_type, &q->content_type) : 0;
}

static GateVerdict on_gate_head(GateConn *c, const HttpHead *head, const char *data, HttpHostClass host,
                                uint64_t *ret_body_max, GateRefusal *ret, void *userdata) {
        RestServer *s = userdata;
        RestRequest *q;
        const RestRoute *route;
        char *args[ROUTE_ARGS_MAX];
        unsigned allowed = 0;
        GateVerdict verdict;
        int r;

        if (host == HTTP_HOST_PROXY) {
                (void) fault_set(&ret->fault, FAULT_AGENT, "No port of this capsule is reachable here.");
                return GATE_REFUSE;
        }

        r = route_find(rest_routes, head->method, data + head->path.offset, head->path.n, &route, args,
                       &allowed);
        if (r < 0) {
                (void) refuse_route(r, allowed, ret);
                return GATE_REFUSE;
        }

        q = malloc(sizeof(RestRequest));
        if (!q) {
                for (size_t i = 0; i < ROUTE_ARGS_MAX; i++)
                        free(args[i]);
                (void) fault_set_errno(&ret->fault, -ENOMEM, "Failed to take the request");
                return GATE_REFUSE;
        }
        *q = (RestRequest) { .server = s, .conn = c, .route = route };
        memcpy(q->args, args, sizeof(args));
        if (request_keep_head(q, head, data) < 0) {
                (void) fault_set_errno(&ret->fault, -ENOMEM, "Failed to take the request");
                rest_request_free(q);
                return GATE_REFUSE;
        }
        if (route->websocket)
                q->upgrade_reject = ws_upgrade_check(head, data, q->upgrade_answer);

        if (route->open) {
                verdict = GATE_PASS;
        } else if (auth_hash(data + head->api_key.offset, head->api_key.n, q->key_hash) < 0) {
                (void) fault_set(&ret->fault, FAULT_UNAUTHORIZED,
                                 head->api_key.n == 0 ? "the X-API-Key header is missing"
                                                      : "invalid API key");
                verdict = GATE_REFUSE;
        } else {
                verdict = request_admit(q, ret);
        }

        if (verdict == GATE_REFUSE) {
                rest_request_free(q);
                return verdict;
        }
        gate_conn_set_request(c, q);
        *ret_body_max = route->body_max;
        return verdict;
}

static const GateHandlers gate_handlers = {
        .on_head = on_gate_head,
        .on_attach = on_gate_attach,
        .on_relayed = on_gate_relayed,
        .on_gone = on_gate_gone,
        .on_taken = on_gate_taken,
        .on_end = on_gate_end,
};

/* What wrennd tells. */

static void on_bus_capsule(const char *id, CapsuleView *view, void *userdata) {
        RestServer *s = userdata;

        if (!view || !capsule_view_is_running(view)) {
                channel_drop(s->channels, id);
                rest_websockets_close(s, NULL, id, WS_CODE_GOING_AWAY, "The capsule has ended.");
        }
        rest_creates_notify(s, id, view);
}

static void on_bus_key_revoked(const char *key_id, void *userdata) {
        RestServer *s = userdata;

        auth_forget(s->auth, key_id);
        rest_websockets_close(s, key_id, NULL, WS_CODE_POLICY, "The API key was revoked.");
}

static void on_bus_lost(void *userdata) {
        RestServer *s = userdata;

        auth_forget(s->auth, NULL);
}

static const BusClientHandlers bus_handlers = {
        .on_capsule = on_bus_capsule,
        .on_key_revoked = on_bus_key_revoked,
        .on_lost = on_bus_lost,
};

static int server_start_mhd(RestServer *s) {
        const union MHD_DaemonInfo *info;
        int r;

        s->mhd = MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME,
                                  /* port= */ 0, /* accept policy= */ NULL, NULL, on_request, s,
                                  MHD_OPTION_NOTIFY_COMPLETED, on_completed, s, MHD_OPTION_NOTIFY_CONNECTION,
                                  on_connection, s, MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, s,
                                  MHD_OPTION_CONNECTION_LIMIT, (unsigned) HTTP_CONNECTIONS_MAX + 1,
                                  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) (32 * KIB),
                                  MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
        if (!s->mhd)
                return -ENOMEM;

        info = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
        if (!info)
                return -EIO;

        r = event_io(s->event, &s->mhd_source, info->epoll_fd, EPOLLIN, PRIORITY_CLIENT, on_mhd_io, s,
                     "mhd");
        if (r < 0)
                return r;
        r = event_defer(s->event, &s->pump_source, PRIORITY_CLIENT, on_pump, s);
        if (r < 0)
                return r;
        return sd_event_source_set_enabled(s->pump_source, SD_EVENT_OFF);
}

int rest_server_new(sd_event *e, BusClient *bus_consume, const RestConfig *config, RestServer **ret) {
        _cleanup_(rest_server_freep) RestServer *s = NULL;
        int r;

        s = malloc(sizeof(RestServer));
        if (!s) {
                bus_client_free(bus_consume);
                return -ENOMEM;
        }
        *s = (RestServer) { .event = sd_event_ref(e), .bus = bus_consume, .config = *config };
        s->config.connections_per_key_max = config->connections_per_key_max ?: HTTP_CONNECTIONS_PER_KEY_MAX;
        s->config.websockets_per_capsule_max = config->websockets_per_capsule_max ?: WS_PER_CAPSULE_MAX;

        r = auth_new(s->bus, &s->auth);
        if (r < 0)
                return r;
        r = channel_table_new(e, s->bus, &s->channels);
        if (r < 0)
                return r;
        s->pty_tags = pty_tags_new();
        if (!s->pty_tags)
                return -ENOMEM;
        r = gate_new(e, &s->config.gate, &gate_handlers, s, &s->gate);
        if (r < 0)
                return r;
        r = server_start_mhd(s);
        if (r < 0)
                return r;

        bus_client_set_handlers(s->bus, &bus_handlers, s);
        *ret = TAKE_PTR(s);
        return 0;
}

RestServer* rest_server_free(RestServer *s) {
        if (!s)
                return NULL;

        if (s->bus)
                bus_client_set_handlers(s->bus, NULL, NULL);
        if (s->gate)
                gate_close_all(s->gate);
        if (s->mhd) {
                rest_server_pump(s); /* it may not be stopped with suspended connections */
                MHD_stop_daemon(s->mhd);
        }
        rest_creates_free(s);
        event_source_free(s->mhd_source);
        event_source_free(s->pump_source);
        gate_free(s->gate);
        channel_table_free(s->channels);
        pty_tags_free(s->pty_tags);
        auth_free(s->auth);
        bus_client_free(s->bus);
        sd_event_unref(s->event);
        free(s);
        return NULL;
}
