/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The answer of GET /processes: whatever was started, it fits into PROCESS_LIST_MAX. */

#include <string.h>

#include "agent/process-internal.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/json-field.h"

#define PROCESS_LIST_MAX H2_QUEUE_BYTES_MAX /* what a stream takes at once */
#define LIST_FRAME_BYTES 64U                /* around the entries */
#define JSON_ESCAPE_LEN  6U
/* An entry without cmd and args, its tag nothing but control characters. */
#define ENTRY_BYTES_MAX                                                                                            \
        (sizeof("{\"pid\":-2147483648,\"tag\":\"\",\"cmd\":\"\",\"args\":[],\"pty\":false,\"truncated\":true},") + \
         TAG_MAX_LEN * JSON_ESCAPE_LEN)

static_assert((PROCESS_LIST_MAX - LIST_FRAME_BYTES) / PROCESSES_MAX > ENTRY_BYTES_MAX,
              "a list of all must fit");

/* Of the byte in a JSON string. */
static size_t json_length(char c) {
        if (strchr("\b\f\n\r\t\"\\", c))
                return 2;

        return (unsigned char) c < 0x20 ? JSON_ESCAPE_LEN : 1;
}

/* The first bytes of the UTF-8 text that take at most *room in JSON, quotes and comma included; *room gets
 * less. NULL: no room for them. */
static json_t* json_prefix(const char *text, size_t *room, bool *ret_cut) {
        size_t n = 0, used = 3;

        if (*room < used)
                return NULL;

        while (text[n] && used + json_length(text[n]) <= *room)
                used += json_length(text[n++]);
        *ret_cut = text[n];
        while (n > 0 && ((unsigned char) text[n] & 0xc0) == 0x80) /* whole characters */
                n--;

        *room -= used;
        return json_stringn(text, n);
}

/* cmd and args up to n bytes in all. */
static json_t* process_to_json(const Process *p, size_t n) {
        _cleanup_json_ json_t *args = json_array();
        bool cut = false;
        json_t *cmd;

        cmd = json_prefix(p->spec.cmd, &n, &cut);
        STRV_FOREACH(a, p->spec.args) {
                json_t *arg = cut ? NULL : json_prefix(*a, &n, &cut);

                if (!arg) {
                        cut = true;
                        break;
                }
                if (json_array_append_new(args, arg) < 0) {
                        json_decref(cmd);
                        return NULL;
                }
        }

        return json_pack("{s:i, s:s, s:o, s:O, s:b, s:o*}", "pid", (int) p->pid, "tag", p->spec.tag, "cmd",
                         cmd, "args", args, "pty", p->spec.pty.wanted, "truncated",
                         cut ? json_true() : NULL);
}

json_t* process_table_to_json(ProcessTable *t) {
        _cleanup_json_ json_t *list = json_array();
        size_t room;

        if (!list)
                return NULL;

        room = (PROCESS_LIST_MAX - LIST_FRAME_BYTES) / MAX(t->n_alive, (size_t) 1) - ENTRY_BYTES_MAX;
        for (Process *p = t->processes; p; p = p->next)
                if (!p->child_ended && json_array_append_new(list, process_to_json(p, room)) < 0)
                        return NULL;

        return json_pack("{s:O}", "processes", list);
}
