/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * wrenn-restd: the gate in front, libmicrohttpd behind it, both in one event loop; requests, their answers
 * and the parts that handlers use. A request is made when the gate has seen a good head, authenticated
 * before its body is read, and freed when libmicrohttpd, or the gate, is done with it. A handler that must
 * wait keeps an operation in the request; freeing the request frees (and thereby cancels) it.
 */

#include <jansson.h>
#include <systemd/sd-event.h>

#include "basic/fault.h"
#include "rest/auth.h"
#include "rest/bus-client.h"
#include "rest/channel.h"
#include "rest/gate.h"
#include "rest/route.h"
#include "rest/ws-upgrade.h"
#include "rest/ws.h"
#include "shared/json-field.h"

struct MHD_Connection;
struct MHD_Daemon;
struct MHD_Response;

typedef struct RestConfig {
        GateConfig gate;
        unsigned connections_per_key_max, websockets_per_capsule_max; /* 0: the limit of basic/limits.h */
} RestConfig;

typedef struct RestServer {
        sd_event *event;
        RestConfig config;
        Gate *gate;
        struct MHD_Daemon *mhd;
        sd_event_source *mhd_source, *pump_source;
        bool pumping, pump_again;
        GateConn *attaching; /* weak: while MHD_add_connection() runs */

        BusClient *bus;
        Auth *auth;
        ChannelTable *channels;
        struct CreateOp *creates; /* that wait for a state (capsules.c) */
        PtyTags *pty_tags;
        uint64_t exec_output_bytes; /* captured now by all execs (EXEC_OUTPUT_TOTAL_MAX) */
        uint64_t spool_bytes;       /* of forms kept now (FILE_SPOOL_TOTAL_MAX) */
        unsigned n_waiting;         /* requests that wait for the daemon */
        RestRequest *websockets;    /* all that are open */
        size_t websocket_bytes;     /* that they hold now (WS_BUFFERED_TOTAL_MAX) */
} RestServer;

/* What the handler of a direct route gets of its connection; each is optional. */
typedef struct RestStream {
        /* Of uploads. The count of bytes taken; after fewer than n gate_conn_continue() is due. */
        size_t (*on_body)(RestRequest *q, const void *data, size_t n);
        void (*on_body_end)(RestRequest *q);
        /* gate_answer_unsent() is HTTP_RELAY_BYTES or less. */
        void (*on_drained)(RestRequest *q);
} RestStream;

struct RestRequest {
        RestServer *server;                /* weak */
        GateConn *conn;                    /* weak: outlives the request */
        struct MHD_Connection *connection; /* NULL before libmicrohttpd has seen the head */
        const RestRoute *route;
        char *args[ROUTE_ARGS_MAX];
        char *query;  /* as sent, without the '?'; NULL: none */
        AuthKey *key; /* NULL on open routes */

        uint8_t key_hash[AUTH_HASH_LEN];
        BusWait *wait; /* for the daemon to be there */
        AuthCall *auth_call;
        BusCall *fetch; /* of a capsule that is not in the copy */
        sd_event_source *deadline;

        char *body; /* NUL-terminated */
        size_t n_body, n_body_allocated;
        uint64_t begin_usec; /* CLOCK_MONOTONIC, when the handler ran */

        /* routes with .websocket */
        HttpReject upgrade_reject;
        char upgrade_answer[WS_ACCEPT_LEN + 1];
        WsConn *websocket;
        RestRequest *next_websocket, *previous_websocket;

        /* of direct routes; the header of uploads only, NULL: none came */
        const RestStream *stream;
        char *content_type;
        bool body_whole;

        bool handled, suspended, answered, gone;
        void *operation;
        void (*operation_free)(void *operation);
};

/* bus: taken. config: what it points to is borrowed for the life of the server. */
int rest_server_new(sd_event *e, BusClient *bus_consume, const RestConfig *config, RestServer **ret);
RestServer* rest_server_free(RestServer *s);
DEFINE_CLEANUP(RestServer, rest_server_free)

/* Runs libmicrohttpd until it has nothing to do and relays what it wrote. */
void rest_server_pump(RestServer *s);

/* Answers; each request is answered once. json: copied. */
void rest_answer_json(RestRequest *q, unsigned status, const char *json);
void rest_answer_json_object(RestRequest *q, unsigned status, json_t *object_consume);
void rest_answer_empty(RestRequest *q, unsigned status);
void rest_answer_fault(RestRequest *q, const Fault *fault);
/* Takes the response in every case. */
void rest_answer_response(RestRequest *q, unsigned status, struct MHD_Response *response_consume);

/* An answer in pieces, of a direct route; then gate_answer_data() and gate_answer_end() or _abort(). */
void rest_answer_begin(RestRequest *q, unsigned status, const char *type);

/* The handler of a direct route is ready for its body and for on_drained. */
void rest_request_set_stream(RestRequest *q, const RestStream *stream);

/* of a request to the agent: what fits its header block beside the rest */
#define AGENT_REQUEST_LEN_MAX (H2_HEADER_BYTES_MAX - KIB)

/*
 * channel_call() to the capsule of q, which must run. path: percent-encoded, with its query. 0, or the fault
 * is set.
 */
int rest_agent_call(RestRequest *q, const char *method, const char *path, bool with_body,
                    const AgentCallHandlers *handlers, void *userdata, AgentCall **ret, Fault *reterr);

/* Without an answer (or its beginning) by then what the request waits for is given up: 504. Set again it
 * begins anew. */
int rest_request_set_deadline(RestRequest *q, uint64_t usec);
/* What the request waits for; operation_free cancels it. The handler returns 0 afterwards. */
void rest_request_wait(RestRequest *q, void *operation, void (*operation_free)(void *operation));

/* Also cancels what it waits for. */
RestRequest* rest_request_free(RestRequest *q);

/* The body as a JSON object; an empty one is refused. */
int rest_request_json(RestRequest *q, json_t **ret, Fault *reterr);

/*
 * The capsule of args[0] in the team of the key: FAULT_INVALID_ARGS for what is no id, FAULT_NOT_FOUND for
 * unknown and for foreign ones alike.
 */
int rest_request_capsule(RestRequest *q, CapsuleView **ret, Fault *reterr);
/* Also FAULT_INVALID_STATE unless it runs. */
int rest_request_running_capsule(RestRequest *q, CapsuleView **ret, Fault *reterr);

/* capsules.c */
int rest_health_get(RestRequest *q, Fault *reterr);
int rest_capsules_create(RestRequest *q, Fault *reterr);
int rest_capsules_list(RestRequest *q, Fault *reterr);
int rest_capsule_get(RestRequest *q, Fault *reterr);
int rest_capsule_delete(RestRequest *q, Fault *reterr);
int rest_capsule_ping(RestRequest *q, Fault *reterr);
/* A capsule's properties changed or it is gone (view NULL): creates may go on. */
void rest_creates_notify(RestServer *s, const char *id, CapsuleView *view);
void rest_creates_free(RestServer *s);

/* openapi.c */
int rest_openapi_get(RestRequest *q, Fault *reterr);
int rest_docs_get(RestRequest *q, Fault *reterr);

/* exec.c */
int rest_capsule_exec(RestRequest *q, Fault *reterr);

/* processes.c */
int rest_processes_list(RestRequest *q, Fault *reterr);
int rest_process_kill(RestRequest *q, Fault *reterr);

/* websockets.c */
/* The gate hands the connection of q over; fd is taken, input borrowed. */
void rest_websocket_begin(RestRequest *q, int fd, const void *input, size_t n_input);
/* Tells the fault in-band, {"type":"error","data":"…","fatal":true}, and closes. */
void rest_websocket_fail(WsConn *w, const Fault *fault, unsigned code);
/* Closes those of this key or this capsule; NULL: of any. */
void rest_websockets_close(RestServer *s, const char *key_id, const char *capsule, unsigned code,
                           const char *reason);

/* files.c, file-upload.c */
int rest_files_read(RestRequest *q, Fault *reterr);
int rest_files_list(RestRequest *q, Fault *reterr);
int rest_files_mkdir(RestRequest *q, Fault *reterr);
int rest_files_remove(RestRequest *q, Fault *reterr);
int rest_files_stat(RestRequest *q, Fault *reterr);
int rest_files_rename(RestRequest *q, Fault *reterr);
int rest_files_tar_read(RestRequest *q, Fault *reterr);
int rest_files_write(RestRequest *q, Fault *reterr);
int rest_files_stream_write(RestRequest *q, Fault *reterr);
int rest_files_tar_write(RestRequest *q, Fault *reterr);

/* direct.c: what rest.c and the gate use of direct routes. */
extern const GateService rest_service;

/* rest.c, for direct.c */
/* 0 or -ENOMEM */
int rest_request_add_body(RestRequest *q, const char *data, size_t n);
/* Runs the handler, now or once it is known what became of the capsule. */
void rest_request_start(RestRequest *q);

/* exec-stream.c */
void rest_exec_stream(RestRequest *q, WsConn *w);
void rest_process_stream(RestRequest *q, WsConn *w);
/* pty.c */
void rest_pty(RestRequest *q, WsConn *w);

/* routes.c */
extern const RestRoute rest_routes[];
