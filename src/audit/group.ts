/** The aggregated API of a cluster's audit trail: its controller serves it, `kloak audit` asks it. */
export const auditGroup = "audit.getkloak.io";
