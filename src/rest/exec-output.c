/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <jansson.h>
#include <string.h>

#include "basic/limits.h"
#include "basic/strings.h"
#include "rest/exec-output.h"
#include "shared/json-field.h"

#define GROW_MIN (4 * KIB)

/* head, stdout, middle, stderr, tail: text as it is or a stream to encode. */
typedef enum BodyPart {
        PART_HEAD,
        PART_STDOUT,
        PART_MIDDLE,
        PART_STDERR,
        PART_TAIL,
        _PART_MAX,
} BodyPart;

struct ExecBody {
        ExecOutput output;
        char *head, *tail;
        bool base64;
        BodyPart part;
        size_t offset; /* in the part's source bytes */
        uint64_t size;
};

void exec_output_init(ExecOutput *o, uint64_t *budget) {
        *o = (ExecOutput) { .budget = budget };
}

void exec_output_done(ExecOutput *o) {
        if (o->budget)
                *o->budget -= exec_output_size(o);
        free(o->data[0]);
        free(o->data[1]);
        *o = (ExecOutput) {};
}

size_t exec_output_size(const ExecOutput *o) {
        return o->n[0] + o->n[1];
}

int exec_output_append(ExecOutput *o, unsigned stream, const void *data, size_t n) {
        assert(stream < 2);

        if (n == 0)
                return 0;
        if (exec_output_size(o) + n > EXEC_OUTPUT_MAX)
                return -E2BIG;
        if (*o->budget + n > EXEC_OUTPUT_TOTAL_MAX)
                return -ENOBUFS;

        if (o->n[stream] + n > o->n_allocated[stream]) {
                size_t twice = MAX(o->n_allocated[stream] * 2, (size_t) GROW_MIN);
                size_t allocate = MAX(o->n[stream] + n, twice);
                char *grown = realloc(o->data[stream], allocate);

                if (!grown)
                        return -ENOMEM;
                o->data[stream] = grown;
                o->n_allocated[stream] = allocate;
        }

        memcpy(o->data[stream] + o->n[stream], data, n);
        o->n[stream] += n;
        *o->budget += n;
        return 0;
}

/* How a byte stands in a JSON string: 1 as it is, 2 with its letter, 6 as \u00XX. */
static unsigned escaped_length(uint8_t c) {
        if (c == '"' || c == '\\' || c == '\b' || c == '\f' || c == '\n' || c == '\r' || c == '\t')
                return 2;
        return c < 0x20 ? 6 : 1;
}

static void escape_byte(uint8_t c, char *out) {
        static const char letters[0x20] = {
                ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'
        };

        *out++ = '\\';
        if (c >= 0x20) {
                *out = (char) c;
        } else if (letters[c]) {
                *out = letters[c];
        } else {
                memcpy(out, "u00", 3);
                out[3] = "0123456789abcdef"[c >> 4];
                out[4] = "0123456789abcdef"[c & 15];
        }
}

static uint64_t encoded_size(const char *data, size_t n, bool base64) {
        uint64_t size = 0;

        if (base64)
                return ((uint64_t) n + 2) / 3 * 4;
        for (size_t i = 0; i < n; i++)
                size += escaped_length((uint8_t) data[i]);
        return size;
}

/* Encodes from *offset on; the count of bytes written. */
static size_t encode_text(const char *data, size_t n, size_t *offset, char *out, size_t max) {
        size_t k = 0;

        while (*offset < n) {
                uint8_t c = (uint8_t) data[*offset];
                unsigned length = escaped_length(c);

                if (length > max - k)
                        break;
                if (length == 1)
                        out[k] = (char) c;
                else
                        escape_byte(c, out + k);
                k += length;
                (*offset)++;
        }
        return k;
}

static size_t encode_base64(const char *data, size_t n, size_t *offset, char *out, size_t max) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const uint8_t *p = (const uint8_t *) data;
        size_t k = 0;

        while (*offset < n && max - k >= 4) {
                size_t i = *offset, left = MIN(n - i, (size_t) 3);
                uint32_t group = (uint32_t) p[i] << 16;

                if (left > 1)
                        group |= (uint32_t) p[i + 1] << 8;
                if (left > 2)
                        group |= p[i + 2];
                out[k++] = digits[group >> 18];
                out[k++] = digits[group >> 12 & 63];
                out[k++] = left > 1 ? digits[group >> 6 & 63] : '=';
                out[k++] = left > 2 ? digits[group & 63] : '=';
                *offset += left;
        }
        return k;
}

static const char middle[] = "\",\"stderr\":\"";

/* Everything around the two streams. */
static int body_make_frame(ExecBody *b, const char *id, const char *cmd, int exit_code,
                           uint64_t duration_msec) {
        _cleanup_json_ json_t *o = NULL;
        _cleanup_free_ char *text = NULL;

        o = json_pack("{s:s,s:s}", "sandbox_id", id, "cmd", cmd);
        text = o ? json_dumps(o, JSON_COMPACT) : NULL;
        if (!text)
                return -ENOMEM;

        text[strlen(text) - 1] = '\0';
        b->head = asprintf_null("%s,\"stdout\":\"", text);
        b->tail = asprintf_null("\",\"exit_code\":%d,\"duration_ms\":%llu,\"encoding\":\"%s\"}", exit_code,
                                (unsigned long long) duration_msec, b->base64 ? "base64" : "utf-8");
        return b->head && b->tail ? 0 : -ENOMEM;
}

int exec_body_new(const char *id, const char *cmd, ExecOutput *o, int exit_code, uint64_t duration_msec,
                  ExecBody **ret) {
        _cleanup_(exec_body_freep) ExecBody *b = NULL;
        int r;

        b = calloc(1, sizeof(ExecBody));
        if (!b)
                return -ENOMEM;

        b->base64 = !utf8_is_valid(o->data[0] ?: "", o->n[0]) || !utf8_is_valid(o->data[1] ?: "", o->n[1]);
        r = body_make_frame(b, id, cmd, exit_code, duration_msec);
        if (r < 0)
                return r;

        b->output = *o;
        *o = (ExecOutput) {};
        b->size = strlen(b->head) + strlen(middle) + strlen(b->tail);
        for (unsigned i = 0; i < 2; i++)
                b->size += encoded_size(b->output.data[i], b->output.n[i], b->base64);

        *ret = TAKE_PTR(b);
        return 0;
}

ExecBody* exec_body_free(ExecBody *b) {
        if (!b)
                return NULL;

        exec_output_done(&b->output);
        free(b->head);
        free(b->tail);
        free(b);
        return NULL;
}

uint64_t exec_body_size(const ExecBody *b) {
        return b->size;
}

static size_t copy_text(const char *text, size_t *offset, char *out, size_t max) {
        size_t n = MIN(strlen(text + *offset), max);

        memcpy(out, text + *offset, n);
        *offset += n;
        return n;
}

/* One part's next bytes; *ret_end when it is through. */
static size_t read_part(ExecBody *b, char *out, size_t max, bool *ret_end) {
        const char *text = b->part == PART_HEAD ? b->head : b->part == PART_MIDDLE ? middle : b->tail;
        unsigned stream = b->part == PART_STDERR;
        size_t k;

        if (b->part == PART_STDOUT || b->part == PART_STDERR) {
                k = (b->base64 ? encode_base64 : encode_text)(b->output.data[stream], b->output.n[stream],
                                                              &b->offset, out, max);
                *ret_end = b->offset == b->output.n[stream];
        } else {
                k = copy_text(text, &b->offset, out, max);
                *ret_end = text[b->offset] == '\0';
        }
        return k;
}

size_t exec_body_read(ExecBody *b, char *buffer, size_t max) {
        size_t k = 0;

        while (b->part < _PART_MAX) {
                bool end = false;

                k += read_part(b, buffer + k, max - k, &end);
                if (!end)
                        break;
                b->part++;
                b->offset = 0;
        }
        return k;
}
