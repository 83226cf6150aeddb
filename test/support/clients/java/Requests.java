/* What the programs in Java share: the arguments of README.md behind the client's KIND, and the requests. */

import java.io.ByteArrayInputStream;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.Map;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

final class Requests {
    /** Makes a request and returns the status of the answer, which it has read. Without a body it is null. */
    interface Asker {
        int ask(String method, String url, Map<String, String> headers, byte[] body) throws Exception;
    }

    /** A client with connections of its own. */
    interface Opener {
        Asker open(String kind, TrustManagerFactory trust, URI to) throws Exception;
    }

    private Requests() {}

    static void make(String[] args, Opener opener) throws Exception {
        TrustManagerFactory trust = trust(args[1]);
        int requests = Integer.parseInt(args[2]);
        byte[] body = body(Integer.parseInt(args[3]));
        String header = System.getenv().getOrDefault("HEADER", "Authorization");
        for (String url : Arrays.copyOfRange(args, 5, args.length)) {
            Asker asker = opener.open(args[0], trust, URI.create(url));
            upload(asker, url, body);
            for (String name : args[4].split(" "))
                for (int i = 0; i < requests; i++)
                    check(asker.ask("GET", url + "/" + name, headers(header, System.getenv(name), i), null));
            upload(asker, url, body);
        }
    }

    /** JSSE pads by a block: the lengths of records are to be all there are in one. */
    private static Map<String, String> headers(String header, String value, int request) {
        return Map.of(header, "Bearer " + value, "X-Fill", "x".repeat(request % 17));
    }

    private static void upload(Asker asker, String url, byte[] body) throws Exception {
        if (body.length > 0) check(asker.ask("POST", url + "/big", Map.of(), body));
    }

    private static void check(int status) {
        if (status != 200) throw new IllegalStateException("status " + status);
    }

    private static byte[] body(int size) {
        byte[] body = new byte[size];
        for (int i = 0; i < size; i++) body[i] = (byte) "0123456789abcdef".charAt(i % 16);
        return body;
    }

    static TrustManagerFactory trust(String ca) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        byte[] certificate = Files.readAllBytes(Path.of(ca));
        store.setCertificateEntry(
                "ca", CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(certificate)));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        return trust;
    }

    static SSLContext context(TrustManagerFactory trust) throws Exception {
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
