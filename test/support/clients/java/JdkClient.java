/* The JDK's own HTTP clients, over JSSE. KIND, then the arguments of README.md; KIND: http1, http2, urlconnection. */

import java.io.ByteArrayInputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.Map;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLSocketFactory;
import javax.net.ssl.TrustManagerFactory;

public final class JdkClient {
    interface Asker {
        int ask(String method, String url, Map<String, String> headers, byte[] body) throws Exception;
    }

    public static void main(String[] args) throws Exception {
        String kind = args[0];
        SSLContext trust = trust(Path.of(args[1]));
        int requests = Integer.parseInt(args[2]);
        byte[] body = body(Integer.parseInt(args[3]));
        String[] names = args[4].split(" ");
        String header = System.getenv().getOrDefault("HEADER", "Authorization");
        for (String url : Arrays.copyOfRange(args, 5, args.length)) {
            Asker asker = asker(kind, trust);
            upload(asker, url, body);
            for (String name : names)
                for (int i = 0; i < requests; i++)
                    check(asker.ask("GET", url + "/" + name, headers(header, System.getenv(name), i), null));
            upload(asker, url, body);
        }
    }

    private static Asker asker(String kind, SSLContext trust) {
        // One factory: connections are kept alive by who made them.
        SSLSocketFactory factory = trust.getSocketFactory();
        if (kind.equals("urlconnection")) return (method, url, headers, body) -> {
            HttpsURLConnection connection = (HttpsURLConnection) URI.create(url).toURL().openConnection();
            connection.setSSLSocketFactory(factory);
            connection.setRequestMethod(method);
            headers.forEach(connection::setRequestProperty);
            if (body != null) {
                connection.setDoOutput(true);
                connection.setFixedLengthStreamingMode(body.length);
                try (OutputStream out = connection.getOutputStream()) {
                    out.write(body);
                }
            }
            int status = connection.getResponseCode();
            if (status == HttpURLConnection.HTTP_OK) connection.getInputStream().readAllBytes();
            return status;
        };
        HttpClient client = HttpClient.newBuilder()
                .sslContext(trust)
                .version(kind.equals("http2") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1)
                .build();
        return (method, url, headers, body) -> {
            HttpRequest.BodyPublisher publisher =
                    body == null ? HttpRequest.BodyPublishers.noBody() : HttpRequest.BodyPublishers.ofByteArray(body);
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url)).method(method, publisher);
            headers.forEach(request::header);
            return client.send(request.build(), HttpResponse.BodyHandlers.ofByteArray()).statusCode();
        };
    }

    private static void upload(Asker asker, String url, byte[] body) throws Exception {
        if (body.length > 0) check(asker.ask("POST", url + "/big", Map.of(), body));
    }

    /** JSSE pads by a block: the lengths of records are to be all there are in one. */
    private static Map<String, String> headers(String header, String value, int request) {
        return Map.of(header, "Bearer " + value, "X-Fill", "x".repeat(request % 17));
    }

    private static void check(int status) {
        if (status != 200) throw new IllegalStateException("status " + status);
    }

    private static byte[] body(int size) {
        byte[] body = new byte[size];
        for (int i = 0; i < size; i++) body[i] = (byte) "0123456789abcdef".charAt(i % 16);
        return body;
    }

    static SSLContext trust(Path ca) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        store.setCertificateEntry(
                "ca",
                CertificateFactory.getInstance("X.509")
                        .generateCertificate(new ByteArrayInputStream(Files.readAllBytes(ca))));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
