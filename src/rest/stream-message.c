/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/stream-message.h"
#include "shared/json-field.h"

#define PTY_CMD_DEFAULT "/bin/bash" /* api.md §2.16 */

static const char *const pty_message_names[_PTY_MESSAGE_TYPE_MAX] = {
        [PTY_MESSAGE_START] = "start",   [PTY_MESSAGE_CONNECT] = "connect", [PTY_MESSAGE_INPUT] = "input",
        [PTY_MESSAGE_RESIZE] = "resize", [PTY_MESSAGE_KILL] = "kill",
};

static int parse_base64(const JsonField *f, json_t *v, void *field, Fault *reterr) {
        PtyMessage *m = field;

        if (!json_is_string(v))
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected a string.", f->name);
        free(TAKE_PTR(m->data));
        if (base64_decode(json_string_value(v), json_string_length(v), &m->data, &m->n_data) < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s: expected base64.", f->name);
        return 0;
}

#define SIZE_FIELDS(flags_)                                                 \
        { "cols", json_parse_u32, offsetof(PtyMessage, cols), flags_,       \
          .limit = &limit_table[LIMIT_PTY_COLS] },                          \
        {                                                                   \
                "rows", json_parse_u32, offsetof(PtyMessage, rows), flags_, \
                                .limit = &limit_table[LIMIT_PTY_ROWS]       \
        }

static const JsonField start_fields[] = { SIZE_FIELDS(JSON_FIELD_ZERO_IS_DEFAULT), {} };
static const JsonField connect_fields[] = { { "tag", json_parse_string, offsetof(PtyMessage, tag),
                                              JSON_FIELD_MANDATORY | JSON_FIELD_NON_EMPTY,
                                              .max = TAG_MAX_LEN },
                                            {} };
static const JsonField input_fields[] = { { "data", parse_base64, 0, JSON_FIELD_MANDATORY }, {} };
static const JsonField resize_fields[] = { SIZE_FIELDS(JSON_FIELD_MANDATORY), {} };
static const JsonField no_fields[] = { {} };

static const JsonField *const pty_message_fields[_PTY_MESSAGE_TYPE_MAX] = {
        [PTY_MESSAGE_START] = start_fields, [PTY_MESSAGE_CONNECT] = connect_fields,
        [PTY_MESSAGE_INPUT] = input_fields, [PTY_MESSAGE_RESIZE] = resize_fields,
        [PTY_MESSAGE_KILL] = no_fields,
};

static const char* message_type(json_t *message) {
        return strempty(json_string_value(json_object_get(message, "type")));
}

int exec_start_from_json(const char *text, size_t n, ExecSpec *ret, Fault *reterr) {
        _cleanup_json_ json_t *message = NULL;

        (void) json_parse_text(text, n, &message, NULL);
        if (!streq(message_type(message), "start") || !json_is_string(json_object_get(message, "cmd")))
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "first message must be type 'start' with a 'cmd' field");
        return exec_spec_from_json(message, ret, reterr);
}

bool exec_message_is_stop(const char *text, size_t n) {
        _cleanup_json_ json_t *message = NULL;

        (void) json_parse_text(text, n, &message, NULL);
        return streq(message_type(message), "stop");
}

void pty_message_done(PtyMessage *m) {
        exec_spec_done(&m->spec);
        free(m->tag);
        free(m->data);
        *m = (PtyMessage) {};
}

/* A terminal is a process like that of an exec, but for the default of its command. */
static int parse_start(json_t *message, PtyMessage *m, Fault *reterr) {
        const char *cmd = json_string_value(json_object_get(message, "cmd"));

        if (isempty(cmd) && json_object_set_new(message, "cmd", json_string(PTY_CMD_DEFAULT)) < 0)
                return fault_set_errno(reterr, -ENOMEM, "Failed to read the message");
        return exec_spec_from_json(message, &m->spec, reterr);
}

int pty_message_from_json(const char *text, size_t n, PtyMessage *ret, Fault *reterr) {
        _cleanup_json_ json_t *message = NULL;
        int r;

        r = json_parse_text(text, n, &message, reterr);
        if (r < 0)
                return r;

        ret->type = _PTY_MESSAGE_TYPE_INVALID;
        for (PtyMessageType t = 0; t < _PTY_MESSAGE_TYPE_MAX; t++)
                if (streq(message_type(message), pty_message_names[t]))
                        ret->type = t;
        if (ret->type < 0)
                return 0;

        r = json_dispatch(message, pty_message_fields[ret->type], ret, reterr);
        if (r >= 0 && ret->type == PTY_MESSAGE_START)
                r = parse_start(message, ret, reterr);
        return r;
}
