/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The kernel's filter for a list (CTA_FILTER, 5.8) takes the address, an older one ignores it: each entry is
 * looked at here again. Only newer kernels remove by filter, so what was listed is removed one by one.
 */

#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <netlink/errno.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <string.h>

#include "basic/limits.h"
#include "daemon/host/flow.h"

#define TUPLE_BYTES_MAX    128U
#define MESSAGE_BYTES_MAX  (32 * KIB)
#define FILTER_ORIG_SOURCE (1U << 0) /* CTA_FILTER_F_CTA_IP_SRC, not in a public header */

struct FlowSocket {
        struct nl_sock *sock;
};

/* CTA_TUPLE_ORIG of one connection, as the kernel gave it. */
typedef struct Flow {
        uint16_t n_tuple;
        uint8_t tuple[TUPLE_BYTES_MAX];
        bool has_zone;
        uint16_t zone; /* network byte order */
} Flow;

typedef struct FlowList {
        struct in_addr source;
        size_t n;
        bool more;
        Flow flows[FLOWS_PER_TURN];
} FlowList;

DEFINE_CLEANUP_VOID(struct nl_msg, nlmsg_free)

int flow_socket_new(FlowSocket **ret) {
        _cleanup_(flow_socket_freep) FlowSocket *s = NULL;

        s = malloc(sizeof(FlowSocket));
        if (!s)
                return -ENOMEM;

        *s = (FlowSocket) { .sock = nl_socket_alloc() };
        if (!s->sock)
                return -ENOMEM;

        if (nl_connect(s->sock, NETLINK_NETFILTER) < 0)
                return -EPROTONOSUPPORT;
        if (nl_socket_set_msg_buf_size(s->sock, MESSAGE_BYTES_MAX) < 0)
                return -ENOMEM;

        nl_socket_disable_msg_peek(s->sock);
        nl_socket_disable_seq_check(s->sock);
        *ret = TAKE_PTR(s);
        return 0;
}

FlowSocket* flow_socket_free(FlowSocket *s) {
        if (!s)
                return NULL;

        if (s->sock)
                nl_socket_free(s->sock);
        free(s);
        return NULL;
}

static struct nl_msg* message_new(int type, int flags) {
        struct nfgenmsg head = { .nfgen_family = AF_INET, .version = NFNETLINK_V0 };
        struct nl_msg *m;

        m = nlmsg_alloc_simple((NFNL_SUBSYS_CTNETLINK << 8) | type, flags);
        if (m && nlmsg_append(m, &head, sizeof(head), NLMSG_ALIGNTO) < 0) {
                nlmsg_free(m);
                return NULL;
        }
        return m;
}

static int on_flow(struct nl_msg *m, void *userdata) {
        struct nlattr *attrs[CTA_MAX + 1], *tuple[CTA_TUPLE_MAX + 1], *ip[CTA_IP_MAX + 1];
        FlowList *l = userdata;
        Flow *f;

        if (nlmsg_parse(nlmsg_hdr(m), sizeof(struct nfgenmsg), attrs, CTA_MAX, NULL) < 0 ||
            !attrs[CTA_TUPLE_ORIG] ||
            nla_parse_nested(tuple, CTA_TUPLE_MAX, attrs[CTA_TUPLE_ORIG], NULL) < 0 ||
            !tuple[CTA_TUPLE_IP] || nla_parse_nested(ip, CTA_IP_MAX, tuple[CTA_TUPLE_IP], NULL) < 0 ||
            !ip[CTA_IP_V4_SRC] || nla_len(ip[CTA_IP_V4_SRC]) != sizeof(struct in_addr) ||
            memcmp(nla_data(ip[CTA_IP_V4_SRC]), &l->source, sizeof(struct in_addr)) != 0)
                return NL_OK;

        if (l->n >= FLOWS_PER_TURN) {
                l->more = true;
                return NL_OK;
        }

        f = &l->flows[l->n];
        if ((size_t) nla_len(attrs[CTA_TUPLE_ORIG]) > sizeof(f->tuple))
                return NL_OK;

        f->n_tuple = (uint16_t) nla_len(attrs[CTA_TUPLE_ORIG]);
        memcpy(f->tuple, nla_data(attrs[CTA_TUPLE_ORIG]), f->n_tuple);
        f->has_zone = attrs[CTA_ZONE] && nla_len(attrs[CTA_ZONE]) == sizeof(f->zone);
        if (f->has_zone)
                memcpy(&f->zone, nla_data(attrs[CTA_ZONE]), sizeof(f->zone));
        l->n++;
        return NL_OK;
}

static int list_request(struct in_addr source, struct nl_msg **ret) {
        _cleanup_(nlmsg_freep) struct nl_msg *m = NULL;
        struct nlattr *tuple, *ip, *filter;

        m = message_new(IPCTNL_MSG_CT_GET, NLM_F_REQUEST | NLM_F_DUMP);
        if (!m)
                return -ENOMEM;

        tuple = nla_nest_start(m, CTA_TUPLE_ORIG | NLA_F_NESTED);
        ip = tuple ? nla_nest_start(m, CTA_TUPLE_IP | NLA_F_NESTED) : NULL;
        if (!ip || nla_put(m, CTA_IP_V4_SRC, sizeof(source), &source) < 0)
                return -ENOMEM;
        (void) nla_nest_end(m, ip);
        (void) nla_nest_end(m, tuple);

        filter = nla_nest_start(m, CTA_FILTER | NLA_F_NESTED);
        if (!filter || nla_put_u32(m, CTA_FILTER_ORIG_FLAGS, FILTER_ORIG_SOURCE) < 0 ||
            nla_put_u32(m, CTA_FILTER_REPLY_FLAGS, 0) < 0)
                return -ENOMEM;
        (void) nla_nest_end(m, filter);

        *ret = TAKE_PTR(m);
        return 0;
}

static int flow_list(FlowSocket *s, FlowList *l) {
        _cleanup_(nlmsg_freep) struct nl_msg *m = NULL;
        int r;

        r = list_request(l->source, &m);
        if (r < 0)
                return r;

        r = nl_socket_modify_cb(s->sock, NL_CB_VALID, NL_CB_CUSTOM, on_flow, l);
        if (r < 0 || nl_send_auto(s->sock, m) < 0)
                return -EIO;

        r = nl_recvmsgs_default(s->sock);
        (void) nl_socket_modify_cb(s->sock, NL_CB_VALID, NL_CB_DEFAULT, NULL, NULL);
        if (r == -NLE_DUMP_INTR) /* the table changed meanwhile, others use it */
                return 0;
        return r == -NLE_PERM ? -EPERM : r < 0 ? -EIO : 0;
}

static int flow_remove(FlowSocket *s, const Flow *f) {
        struct nl_msg *m;
        int r;

        m = message_new(IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST | NLM_F_ACK);
        if (!m)
                return -ENOMEM;

        if (nla_put(m, CTA_TUPLE_ORIG | NLA_F_NESTED, f->n_tuple, f->tuple) < 0 ||
            (f->has_zone && nla_put(m, CTA_ZONE, sizeof(f->zone), &f->zone) < 0)) {
                nlmsg_free(m);
                return -ENOMEM;
        }

        r = nl_send_sync(s->sock, m); /* frees m */
        return r < 0 && r != -NLE_OBJ_NOTFOUND ? -EIO : 0;
}

int flow_forget(FlowSocket *s, struct in_addr source) {
        _cleanup_free_ FlowList *l = NULL;
        int r;

        l = malloc(sizeof(FlowList));
        if (!l)
                return -ENOMEM;

        l->source = source;
        l->n = 0;
        l->more = false;
        r = flow_list(s, l);
        for (size_t i = 0; i < l->n && r >= 0; i++)
                r = flow_remove(s, &l->flows[i]);

        return r < 0 ? r : l->more;
}
