/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Uploads (api.md §2.19, §2.24; and tars): the body goes to the agent as it comes and no faster than the
 * agent takes it. Only a form of files/write whose file stands before its path is kept until the path has
 * come, in a nameless file.
 */

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/limit-table.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/file-path.h"
#include "rest/files.h"
#include "rest/multipart.h"

#define SPOOL_DIRECTORY "/var/tmp"
#define SPOOL_BLOCK     (64 * KIB)

typedef enum FormField {
        FIELD_OTHER, /* ignored */
        FIELD_PATH,
        FIELD_PATH_BASE64,
        FIELD_FILE,
        _FIELD_MAX,
} FormField;

static const char *const field_names[_FIELD_MAX] = {
        [FIELD_OTHER] = "",
        [FIELD_PATH] = "path",
        [FIELD_PATH_BASE64] = "path_base64",
        [FIELD_FILE] = "file",
};

typedef struct Upload {
        RestRequest *request; /* weak: it owns us */
        AgentCall *call;
        bool sent; /* all of the file is with the agent, or with the channel to it */
        bool done; /* the agent has it */

        Multipart form;
        bool path_first; /* a file before its path is refused */
        FormField field; /* that is read now */
        char *value;     /* of a path that is read */
        size_t n_value;
        char *path; /* percent-encoded */
        bool have_file;

        int spool_fd;
        uint64_t n_spooled, n_unspooled;
} Upload;

static void upload_free(void *operation) {
        Upload *u = operation;

        agent_call_free(u->call);
        multipart_done(&u->form);
        u->request->server->spool_bytes -= u->n_spooled;
        (void) close_fd(u->spool_fd);
        free(u->value);
        free(u->path);
        free(u);
}

static Upload* upload_new(RestRequest *q) {
        Upload *u;

        u = malloc(sizeof(Upload));
        if (u)
                *u = (Upload) { .request = q, .spool_fd = -EBADF };
        return u;
}

static void upload_fail(Upload *u, const Fault *fault) {
        u->call = agent_call_free(u->call);
        rest_answer_fault(u->request, fault);
}

/* To the agent. */

static void upload_answer(Upload *u) {
        if (u->done && u->request->body_whole)
                rest_answer_empty(u->request, 204);
}

static void on_data(AgentCall *c, const void *data, size_t n, void *userdata) {
        agent_call_consume(c, n);
}

static void on_end(AgentCall *c, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Upload *u = userdata;

        if (!u->sent) {
                (void) fault_set(&fault, FAULT_AGENT, "The capsule's agent did not wait for the end.");
                upload_fail(u, &fault);
                return;
        }
        u->call = agent_call_free(u->call);
        u->done = true;
        if (u->request->body_whole)
                upload_answer(u);
        else
                gate_conn_continue(u->request->conn); /* the rest may wait for room; it may free us */
}

static void on_failed(AgentCall *c, const Fault *fault, void *userdata) {
        upload_fail(userdata, fault);
}

static int upload_unspool(Upload *u, Fault *reterr);

static void on_writable(AgentCall *c, void *userdata) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Upload *u = userdata;

        if (!u->request->body_whole)
                gate_conn_continue(u->request->conn);
        else if (u->spool_fd >= 0 && upload_unspool(u, &fault) < 0)
                upload_fail(u, &fault);
}

static const AgentCallHandlers handlers = {
        .on_data = on_data,
        .on_end = on_end,
        .on_writable = on_writable,
        .on_failed = on_failed,
};

/* path_consume NULL: out of memory */
static int upload_begin(Upload *u, char *path_consume, Fault *reterr) {
        _cleanup_free_ char *path = path_consume;

        if (!path)
                return fault_set_errno(reterr, -ENOMEM, "Failed to take the file");
        return rest_agent_call(u->request, "PUT", path, /* with_body= */ true, &handlers, u, &u->call,
                               reterr);
}

static int upload_begin_file(Upload *u, Fault *reterr) {
        return upload_begin(u, strjoin("/files?path=", u->path, "&mode=0644"), reterr);
}

/* All of the bytes, for which there is room. */
static int upload_write(Upload *u, const void *data, size_t n, Fault *reterr) {
        if (agent_call_write(u->call, data, n) != (ssize_t) n)
                return fault_set(reterr, FAULT_AGENT, "The connection to the capsule was lost.");
        return 0;
}

static int upload_end(Upload *u, Fault *reterr) {
        u->sent = true;
        (void) rest_request_set_deadline(u->request, AGENT_WORK_USEC);
        if (agent_call_end(u->call) < 0)
                return fault_set(reterr, FAULT_AGENT, "The connection to the capsule was lost.");
        return 0;
}

/* Files that come before their path. */

static int spool_open(Upload *u, Fault *reterr) {
        u->spool_fd = open(SPOOL_DIRECTORY, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        return u->spool_fd >= 0 ? 0 : fault_set_errno(reterr, -errno, "Failed to keep the file");
}

static int spool_write(Upload *u, const void *data, size_t n, Fault *reterr) {
        RestServer *s = u->request->server;
        int r;

        if (s->spool_bytes + n > FILE_SPOOL_TOTAL_MAX)
                return fault_set(reterr, FAULT_NO_CAPACITY,
                                 "Too many forms whose path comes behind the file; send the path first.");
        s->spool_bytes += n;
        u->n_spooled += n;
        r = write_all(u->spool_fd, data, n);
        return r < 0 ? fault_set_errno(reterr, r, "Failed to keep the file") : 0;
}

static int upload_unspool(Upload *u, Fault *reterr) {
        char block[SPOOL_BLOCK];
        int r = 0;

        while (r >= 0 && u->n_unspooled < u->n_spooled) {
                size_t n = MIN(agent_call_room(u->call), sizeof(block));
                ssize_t k;

                if (n == 0)
                        return 0; /* on_writable goes on */
                k = pread(u->spool_fd, block, n, (off_t) u->n_unspooled);
                if (k <= 0)
                        return fault_set_errno(reterr, k < 0 ? -errno : -EIO,
                                               "Failed to read the kept file");
                u->n_unspooled += (uint64_t) k;
                r = upload_write(u, block, (size_t) k, reterr);
        }
        if (r < 0 || u->sent)
                return r;
        return upload_end(u, reterr);
}

/* Forms. */

static int form_begin_part(Upload *u, Fault *reterr) {
        for (u->field = FIELD_PATH; u->field < _FIELD_MAX; u->field++)
                if (streq(u->form.name, field_names[u->field]))
                        break;
        if (u->field == _FIELD_MAX)
                u->field = FIELD_OTHER;
        if (u->field == FIELD_OTHER)
                return 0;

        if (u->field == FIELD_FILE ? u->have_file : u->path != NULL)
                return fault_set(reterr, FAULT_INVALID_ARGS, "the field %s stands twice.",
                                 field_names[u->field]);
        if (u->field != FIELD_FILE)
                return 0;

        u->have_file = true;
        if (u->path)
                return upload_begin_file(u, reterr);
        if (u->path_first)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "the field path must come before the field file.");
        return spool_open(u, reterr);
}

static int form_add(Upload *u, const char *data, size_t n, Fault *reterr) {
        char *value;

        switch (u->field) {
        case FIELD_FILE:
                return u->call ? upload_write(u, data, n, reterr) : spool_write(u, data, n, reterr);
        case FIELD_PATH:
        case FIELD_PATH_BASE64:
                if (u->n_value + n > 2 * FILE_PATH_LEN_MAX)
                        return limit_check_text(&limit_table[LIMIT_FILE_PATH], "path", u->n_value + n,
                                                reterr);
                value = realloc(u->value, u->n_value + n);
                if (!value)
                        return fault_set_errno(reterr, -ENOMEM, "Failed to take the path");
                memcpy(value + u->n_value, data, n);
                u->value = value;
                u->n_value += n;
                return 0;
        default:
                return 0;
        }
}

static int form_end_part(Upload *u, Fault *reterr) {
        switch (u->field) {
        case FIELD_FILE:
                return u->call ? upload_end(u, reterr) : 0;
        case FIELD_PATH:
                return file_path_from_text("path", strempty(u->value), u->n_value, &u->path, reterr);
        case FIELD_PATH_BASE64:
                return file_path_from_base64("path", strempty(u->value), u->n_value, &u->path, reterr);
        default:
                return 0;
        }
}

static int form_handle(Upload *u, MultipartEvent event, const char *data, size_t n, Fault *reterr) {
        switch (event) {
        case MULTIPART_PART:
                return form_begin_part(u, reterr);
        case MULTIPART_DATA:
                return form_add(u, data, n, reterr);
        case MULTIPART_PART_END:
                return form_end_part(u, reterr);
        default:
                return 0;
        }
}

static size_t on_form_body(RestRequest *q, const void *data, size_t n) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Upload *u = q->operation;
        MultipartEvent event;
        const char *contents;
        size_t n_contents, i = 0;

        do {
                size_t room = u->field == FIELD_FILE && u->call ? agent_call_room(u->call) : SIZE_MAX;
                ssize_t k = multipart_next(&u->form, (const char *) data + i, n - i, room, &event, &contents,
                                           &n_contents, &fault);

                if (k < 0 || form_handle(u, event, contents, n_contents, &fault) < 0) {
                        upload_fail(u, &fault);
                        return n;
                }
                i += (size_t) k;
        } while (event != MULTIPART_MORE && !(event == MULTIPART_DATA && n_contents == 0));
        return i;
}

static int form_finish(Upload *u, Fault *reterr) {
        int r;

        r = multipart_finish(&u->form, reterr);
        if (r < 0)
                return r;
        if (!u->path)
                return fault_set(reterr, FAULT_INVALID_ARGS, "the field path is missing.");
        if (!u->have_file)
                return fault_set(reterr, FAULT_INVALID_ARGS, "the field file is missing.");
        if (u->spool_fd < 0)
                return 0;

        r = upload_begin_file(u, reterr);
        return r < 0 ? r : upload_unspool(u, reterr);
}

static void on_form_end(RestRequest *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Upload *u = q->operation;

        if (form_finish(u, &fault) < 0)
                upload_fail(u, &fault);
        else
                upload_answer(u);
}

static const RestStream form_stream = { .on_body = on_form_body, .on_body_end = on_form_end };

static int start_form(RestRequest *q, bool path_first, Fault *reterr) {
        CapsuleView *v;
        Upload *u;
        int r;

        r = rest_request_running_capsule(q, &v, reterr);
        if (r < 0)
                return r;
        u = upload_new(q);
        if (!u)
                return fault_set_errno(reterr, -ENOMEM, "Failed to take the form");
        u->path_first = path_first;
        r = multipart_init(&u->form, q->content_type, reterr);
        if (r < 0) {
                upload_free(u);
                return r;
        }

        rest_request_wait(q, u, upload_free);
        rest_request_set_stream(q, &form_stream);
        return 0;
}

int rest_files_write(RestRequest *q, Fault *reterr) {
        return start_form(q, /* path_first= */ false, reterr);
}

int rest_files_stream_write(RestRequest *q, Fault *reterr) {
        return start_form(q, /* path_first= */ true, reterr);
}

/* Tars: the body as it is. What follows the end of an archive need not be read. */

static size_t on_tar_body(RestRequest *q, const void *data, size_t n) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Upload *u = q->operation;

        if (u->done)
                return n;
        n = MIN(n, agent_call_room(u->call));
        if (n > 0 && upload_write(u, data, n, &fault) < 0)
                upload_fail(u, &fault);
        return n;
}

static void on_tar_end(RestRequest *q) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        Upload *u = q->operation;

        (void) rest_request_set_deadline(q, AGENT_WORK_USEC);
        if (!u->done && agent_call_end(u->call) < 0) {
                (void) fault_set(&fault, FAULT_AGENT, "The connection to the capsule was lost.");
                upload_fail(u, &fault);
        } else {
                upload_answer(u);
        }
}

static const RestStream tar_stream = { .on_body = on_tar_body, .on_body_end = on_tar_end };

int rest_files_tar_write(RestRequest *q, Fault *reterr) {
        _cleanup_free_ char *path = NULL;
        CapsuleView *v;
        Upload *u;
        int r;

        r = rest_request_running_capsule(q, &v, reterr);
        if (r < 0)
                return r;
        r = file_path_from_query(q->query, &path, reterr);
        if (r < 0)
                return r;
        u = upload_new(q);
        if (!u)
                return fault_set_errno(reterr, -ENOMEM, "Failed to take the archive");
        u->sent = true; /* the agent decides where it ends */
        r = upload_begin(u, strjoin("/files/tar?path=", path), reterr);
        if (r < 0) {
                upload_free(u);
                return r;
        }

        rest_request_wait(q, u, upload_free);
        rest_request_set_stream(q, &tar_stream);
        return 0;
}
