/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "rest/multipart.h"

#define PARAM_NAME_MAX 32U

static int malformed(Fault *reterr, const char *what) {
        return fault_set(reterr, FAULT_INVALID_ARGS, "malformed multipart body: %s.", what);
}

static bool equal_nocase(const char *s, size_t n, const char *lower) {
        return strlen(lower) == n && strncasecmp(s, lower, n) == 0;
}

static bool is_blank(char c) {
        return c == ' ' || c == '\t';
}

static const char* skip_blanks(const char *p, const char *end) {
        while (p < end && is_blank(*p))
                p++;
        return p;
}

/* The text up to one of these, or up to the end. */
static size_t span_until(const char *p, const char *end, const char *stop) {
        const char *s = p;

        while (p < end && !strchr(stop, *p))
                p++;
        return (size_t) (p - s);
}

/* Parameters of a header. */

typedef struct Param {
        const char *name;
        size_t n_name;
        char value[MULTIPART_NAME_MAX + 1];
        bool truncated;
} Param;

static void param_add(Param *param, size_t *n, char c) {
        if (*n < MULTIPART_NAME_MAX)
                param->value[(*n)++] = c;
        else
                param->truncated = true;
}

/* A quoted string; *p stands behind the first quote, later behind the last. */
static int param_quoted(const char **p, const char *end, Param *ret, size_t *n) {
        const char *s = *p;

        for (; s < end && *s != '"'; s++) {
                if (*s == '\\' && ++s == end)
                        break;
                param_add(ret, n, *s);
        }
        if (s >= end)
                return -EBADMSG;
        *p = s + 1;
        return 0;
}

/* The next "; name=value": 1, 0 at the end, -EBADMSG. */
static int param_next(const char **p, const char *end, Param *ret) {
        const char *s = skip_blanks(*p, end);
        size_t n = 0;

        if (s == end)
                return 0;
        if (*s++ != ';')
                return -EBADMSG;

        *ret = (Param) { .name = skip_blanks(s, end) };
        ret->n_name = span_until(ret->name, end, "= \t;\"");
        s = ret->name + ret->n_name;
        if (ret->n_name == 0 || s == end || *s++ != '=')
                return -EBADMSG;

        if (s < end && *s == '"') {
                s++;
                if (param_quoted(&s, end, ret, &n) < 0)
                        return -EBADMSG;
        } else {
                size_t n_value = span_until(s, end, "; \t\"");

                if (n_value == 0)
                        return -EBADMSG;
                for (size_t i = 0; i < n_value; i++)
                        param_add(ret, &n, s[i]);
                s += n_value;
        }
        ret->value[n] = '\0';
        *p = s;
        return 1;
}

/* RFC 2046 §5.1.1: bchars, no blank at the end. */
static bool boundary_is_valid(const char *s) {
        size_t n = strlen(s);

        for (size_t i = 0; i < n; i++)
                if (!(s[i] >= '0' && s[i] <= '9') && !(s[i] >= 'a' && s[i] <= 'z') &&
                    !(s[i] >= 'A' && s[i] <= 'Z') && !strchr("'()+_,-./:=? ", s[i]))
                        return false;
        return n > 0 && n <= MULTIPART_BOUNDARY_MAX && s[n - 1] != ' ';
}

int multipart_init(Multipart *m, const char *content_type, Fault *reterr) {
        const char *p = strempty(content_type), *end = p + strlen(p);
        size_t n_type = span_until(p, end, "; \t");
        char boundary[MULTIPART_BOUNDARY_MAX + 1] = "";
        Param param;
        int r;

        if (!equal_nocase(p, n_type, "multipart/form-data"))
                return fault_set(
                                reterr, FAULT_INVALID_ARGS,
                                "expected a body of type multipart/form-data with the fields path and file.");

        p += n_type;
        while ((r = param_next(&p, end, &param)) > 0) {
                if (!equal_nocase(param.name, param.n_name, "boundary"))
                        continue;
                if (boundary[0] != '\0' || param.truncated || !boundary_is_valid(param.value))
                        return fault_set(reterr, FAULT_INVALID_ARGS,
                                         "the multipart boundary must be one of 1 to %u characters.",
                                         MULTIPART_BOUNDARY_MAX);
                memcpy(boundary, param.value, strlen(param.value) + 1);
        }
        if (r < 0 || boundary[0] == '\0')
                return fault_set(reterr, FAULT_INVALID_ARGS, "the Content-Type has no multipart boundary.");

        /* the first delimiter stands at the very beginning, or behind a line's end */
        *m = (Multipart) { .n_matched = 2 };
        m->n_delimiter = strlen(boundary) + 4;
        memcpy(m->delimiter, "\r\n--", 4);
        memcpy(m->delimiter + 4, boundary, strlen(boundary) + 1);
        return 0;
}

void multipart_done(Multipart *m) {
        free(m->head);
        *m = (Multipart) {};
}

/* Heads of parts. */

static int parse_disposition(Multipart *m, const char *p, const char *end, Fault *reterr) {
        size_t n_type = span_until(p, end, "; \t");
        bool have_name = false, have_filename = false;
        Param param;
        int r;

        if (!equal_nocase(p, n_type, "form-data"))
                return malformed(reterr, "a part is no form-data");

        p += n_type;
        while ((r = param_next(&p, end, &param)) > 0) {
                bool name = equal_nocase(param.name, param.n_name, "name");
                bool filename = equal_nocase(param.name, param.n_name, "filename");

                if ((name && have_name) || (filename && have_filename))
                        return malformed(reterr, "a parameter of Content-Disposition stands twice");
                have_name |= name;
                have_filename |= filename;
                if (name && param.truncated)
                        return malformed(reterr, "the name of a field is too long");
                if (name)
                        memcpy(m->name, param.value, sizeof(m->name));
        }
        if (r < 0)
                return malformed(reterr, "a wrong Content-Disposition");
        if (!have_name)
                return malformed(reterr, "a part has no name");

        m->has_filename = have_filename;
        return 0;
}

static bool line_is_good(const char *s, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (((uint8_t) s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
                        return false;
        return n > 0 && !is_blank(s[0]);
}

static int parse_header(Multipart *m, const char *line, size_t n, bool *have_disposition, Fault *reterr) {
        const char *end = line + n, *value;
        size_t n_name = span_until(line, end, ": \t");

        if (!line_is_good(line, n) || n_name == 0 || n_name == n || line[n_name] != ':')
                return malformed(reterr, "a wrong header line in a part");

        value = skip_blanks(line + n_name + 1, end);
        while (end > value && is_blank(end[-1]))
                end--;

        if (equal_nocase(line, n_name, "content-disposition")) {
                if (*have_disposition)
                        return malformed(reterr, "a part has two Content-Disposition headers");
                *have_disposition = true;
                return parse_disposition(m, value, end, reterr);
        }
        if (equal_nocase(line, n_name, "content-transfer-encoding") &&
            !equal_nocase(value, (size_t) (end - value), "binary") &&
            !equal_nocase(value, (size_t) (end - value), "8bit") &&
            !equal_nocase(value, (size_t) (end - value), "7bit"))
                return malformed(reterr, "parts must not be encoded");
        return 0;
}

/* The head, whole with its empty line. */
static int parse_head(Multipart *m, Fault *reterr) {
        const char *p = m->head, *end = m->head + m->n_head - 2;
        bool have_disposition = false;
        int r;

        m->name[0] = '\0';
        m->has_filename = false;
        while (p < end) {
                const char *eol = memmem(p, (size_t) (end - p), "\r\n", 2);

                assert(eol); /* the head ends in one */
                r = parse_header(m, p, (size_t) (eol - p), &have_disposition, reterr);
                if (r < 0)
                        return r;
                p = eol + 2;
        }
        if (!have_disposition)
                return malformed(reterr, "a part has no Content-Disposition header");

        free(m->head);
        m->head = NULL;
        m->n_head = 0;
        return 0;
}

static bool head_is_whole(const Multipart *m) {
        if (m->n_head == 2)
                return memcmp(m->head, "\r\n", 2) == 0;
        return m->n_head >= 4 && memcmp(m->head + m->n_head - 4, "\r\n\r\n", 4) == 0;
}

static ssize_t step_head(Multipart *m, const char *data, size_t n, MultipartEvent *ret_event,
                         Fault *reterr) {
        int r;

        if (!m->head) {
                m->head = malloc(MULTIPART_HEADERS_MAX);
                if (!m->head)
                        return fault_set_errno(reterr, -ENOMEM, "Failed to read the form");
        }

        for (size_t i = 0; i < n; i++) {
                if (m->n_head == MULTIPART_HEADERS_MAX)
                        return malformed(reterr, "the head of a part is too large");
                m->head[m->n_head++] = data[i];
                if (data[i] != '\n' || !head_is_whole(m))
                        continue;

                r = parse_head(m, reterr);
                if (r < 0)
                        return r;
                m->state = MULTIPART_STATE_BODY;
                m->in_part = true;
                *ret_event = MULTIPART_PART;
                return (ssize_t) i + 1;
        }
        return (ssize_t) n;
}

/* Contents and delimiters. */

static size_t common_prefix(const char *a, size_t n_a, const char *b, size_t n_b) {
        size_t k = 0;

        while (k < n_a && k < n_b && a[k] == b[k])
                k++;
        return k;
}

/* The bytes in front of what is or may become a delimiter. */
static size_t contents_length(const Multipart *m, const char *data, size_t n) {
        const char *p = data, *end = data + n;

        while ((p = memchr(p, '\r', (size_t) (end - p)))) {
                size_t k = common_prefix(p, (size_t) (end - p), m->delimiter, m->n_delimiter);

                if (k == m->n_delimiter || p + k == end)
                        return (size_t) (p - data);
                p++;
        }
        return n;
}

/* Goes on with a delimiter that has begun, perhaps in earlier input. The count of bytes that belong to it.
 */
static size_t match(Multipart *m, const char *data, size_t n) {
        size_t k = common_prefix(data, n, m->delimiter + m->n_matched, m->n_delimiter - m->n_matched);

        m->n_matched += k;
        if (k < n && m->n_matched < m->n_delimiter) { /* it was none */
                m->held = 0;
                m->n_held = m->n_matched;
                m->n_matched = 0;
        }
        return k;
}

/* In the preamble the contents are nobody's. */
static ssize_t step_body(Multipart *m, const char *data, size_t n, size_t max, MultipartEvent *ret_event,
                         const char **ret_data, size_t *ret_n) {
        size_t k = 0;

        if (m->n_matched == 0 && m->n_held == 0)
                k = contents_length(m, data, n);
        if (m->n_held > 0 || k > 0) {
                *ret_event = MULTIPART_DATA;
                *ret_data = m->n_held > 0 ? m->delimiter + m->held : data;
                *ret_n = MIN(m->n_held > 0 ? m->n_held : k, max);
                if (m->n_held == 0)
                        return (ssize_t) *ret_n;
                m->held += *ret_n;
                m->n_held -= *ret_n;
                return 0;
        }

        k = match(m, data, n);
        if (m->n_matched == m->n_delimiter) {
                m->n_matched = m->n_dropped = 0;
                m->state = MULTIPART_STATE_DELIMITER;
                if (m->in_part)
                        *ret_event = MULTIPART_PART_END;
                m->in_part = false;
        }
        return (ssize_t) k;
}

/* What stands outside of the parts is bounded. */
static int drop(Multipart *m, size_t n, Fault *reterr) {
        m->n_dropped += n;
        if (m->n_dropped > MULTIPART_HEADERS_MAX)
                return malformed(reterr, "too much text outside of the parts");
        return 0;
}

static ssize_t step_preamble(Multipart *m, const char *data, size_t n, Fault *reterr) {
        MultipartEvent event = MULTIPART_MORE;
        const char *dropped;
        size_t n_dropped;
        ssize_t k;

        k = step_body(m, data, n, SIZE_MAX, &event, &dropped, &n_dropped);
        if (event == MULTIPART_DATA && drop(m, n_dropped, reterr) < 0)
                return -EINVAL;
        return k;
}

/* One byte behind "--boundary". */
static int step_delimiter(Multipart *m, char c, MultipartEvent *ret_event, Fault *reterr) {
        switch (m->state) {
        case MULTIPART_STATE_DELIMITER:
                if (is_blank(c))
                        return drop(m, 1, reterr);
                if (c == '\r')
                        m->state = MULTIPART_STATE_DELIMITER_LF;
                else if (c == '-' && m->n_dropped == 0)
                        m->state = MULTIPART_STATE_DELIMITER_DASH;
                else
                        return malformed(reterr, "text behind a delimiter");
                return 0;
        case MULTIPART_STATE_DELIMITER_LF:
                if (c != '\n')
                        return malformed(reterr, "lines must end in CR LF");
                if (m->n_parts++ >= MULTIPART_PARTS_MAX)
                        return malformed(reterr, "too many parts");
                m->state = MULTIPART_STATE_HEAD;
                return 0;
        default:
                if (c != '-')
                        return malformed(reterr, "text behind a delimiter");
                m->state = MULTIPART_STATE_EPILOGUE;
                *ret_event = MULTIPART_END;
                return 0;
        }
}

static ssize_t step(Multipart *m, const char *data, size_t n, size_t max, MultipartEvent *ret_event,
                    const char **ret_data, size_t *ret_n, Fault *reterr) {
        int r;

        switch (m->state) {
        case MULTIPART_STATE_PREAMBLE:
                return step_preamble(m, data, n, reterr);
        case MULTIPART_STATE_HEAD:
                return step_head(m, data, n, ret_event, reterr);
        case MULTIPART_STATE_BODY:
                return step_body(m, data, n, max, ret_event, ret_data, ret_n);
        case MULTIPART_STATE_EPILOGUE:
                r = drop(m, n, reterr);
                return r < 0 ? r : (ssize_t) n;
        default:
                r = step_delimiter(m, data[0], ret_event, reterr);
                return r < 0 ? r : 1;
        }
}

ssize_t multipart_next(Multipart *m, const char *data, size_t n, size_t max, MultipartEvent *ret_event,
                       const char **ret_data, size_t *ret_n, Fault *reterr) {
        size_t i = 0;

        *ret_event = MULTIPART_MORE;
        *ret_data = NULL;
        *ret_n = 0;
        while (*ret_event == MULTIPART_MORE && (i < n || m->n_held > 0)) {
                ssize_t k = step(m, data + i, n - i, max, ret_event, ret_data, ret_n, reterr);

                if (k < 0)
                        return k;
                i += (size_t) k;
        }
        return (ssize_t) i;
}

int multipart_finish(const Multipart *m, Fault *reterr) {
        if (m->state != MULTIPART_STATE_EPILOGUE)
                return malformed(reterr, "it ends before its last delimiter");
        return 0;
}
