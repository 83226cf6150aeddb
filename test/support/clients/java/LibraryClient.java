/*
 * HTTP clients from Maven (pom.xml). KIND: okhttp, okhttp-http2, apache, netty over JSSE; netty-tcnative, okhttp-conscrypt over
 * the BoringSSL that these bring.
 */

import io.netty.bootstrap.Bootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.MultiThreadIoEventLoopGroup;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioIoHandler;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpRequest;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpClientCodec;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.ssl.SslContext;
import io.netty.handler.ssl.SslContextBuilder;
import io.netty.handler.ssl.SslProvider;
import io.netty.handler.ssl.SupportedCipherSuiteFilter;
import java.net.URI;
import java.security.KeyStore;
import java.security.Provider;
import java.security.cert.X509Certificate;
import java.util.List;
import java.util.concurrent.LinkedBlockingQueue;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;
import okhttp3.OkHttpClient;
import okhttp3.Protocol;
import okhttp3.Request;
import okhttp3.RequestBody;
import okhttp3.Response;
import org.apache.hc.client5.http.classic.methods.HttpUriRequestBase;
import org.apache.hc.client5.http.impl.classic.CloseableHttpClient;
import org.apache.hc.client5.http.impl.classic.HttpClients;
import org.apache.hc.client5.http.impl.io.PoolingHttpClientConnectionManagerBuilder;
import org.apache.hc.client5.http.ssl.DefaultClientTlsStrategy;
import org.apache.hc.core5.http.io.entity.ByteArrayEntity;
import org.apache.hc.core5.http.io.entity.EntityUtils;
import org.conscrypt.Conscrypt;

public final class LibraryClient {
    public static void main(String[] args) {
        int status = 1;
        try {
            Requests.make(args, LibraryClient::open);
            status = 0;
        } catch (Exception problem) {
            problem.printStackTrace();
        }
        System.exit(status); // their threads would keep it alive for a while
    }

    private static Requests.Asker open(String kind, TrustManagerFactory trust, URI to) throws Exception {
        switch (kind) {
            case "okhttp":
                return okhttp(trust, Requests.context(trust), List.of(Protocol.HTTP_1_1));
            case "okhttp-http2":
                return okhttp(trust, Requests.context(trust), List.of(Protocol.HTTP_2, Protocol.HTTP_1_1));
            case "okhttp-conscrypt":
                return conscrypt(trust);
            case "apache":
                return apache(trust);
            case "netty":
                return netty(trust, to, SslProvider.JDK);
            case "netty-tcnative":
                return netty(trust, to, SslProvider.OPENSSL);
            default:
                throw new IllegalArgumentException(kind);
        }
    }

    /** With a trust manager of Conscrypt's: that of the JDK does not know what it calls TLS 1.3's way to authenticate. */
    private static Requests.Asker conscrypt(TrustManagerFactory trust) throws Exception {
        Provider provider = Conscrypt.newProviderBuilder().provideTrustManager(true).build();
        KeyStore roots = KeyStore.getInstance(KeyStore.getDefaultType());
        roots.load(null, null);
        for (X509Certificate root : ((X509TrustManager) trust.getTrustManagers()[0]).getAcceptedIssuers())
            roots.setCertificateEntry(root.getSubjectX500Principal().getName(), root);
        TrustManagerFactory own = TrustManagerFactory.getInstance("PKIX", provider);
        own.init(roots);
        SSLContext context = SSLContext.getInstance("TLS", provider);
        context.init(null, own.getTrustManagers(), null);
        return okhttp(own, context, List.of(Protocol.HTTP_1_1));
    }

    private static Requests.Asker okhttp(TrustManagerFactory trust, SSLContext tls, List<Protocol> protocols) {
        OkHttpClient client = new OkHttpClient.Builder()
                .sslSocketFactory(tls.getSocketFactory(), (X509TrustManager) trust.getTrustManagers()[0])
                .protocols(protocols)
                .build();
        return (method, url, headers, body) -> {
            Request.Builder request = new Request.Builder().url(url);
            request.method(method, body == null ? null : RequestBody.create(body));
            headers.forEach(request::header);
            try (Response response = client.newCall(request.build()).execute()) {
                response.body().bytes();
                return response.code();
            }
        };
    }

    private static Requests.Asker apache(TrustManagerFactory trust) throws Exception {
        CloseableHttpClient client = HttpClients.custom()
                .setConnectionManager(PoolingHttpClientConnectionManagerBuilder.create()
                        .setTlsSocketStrategy(new DefaultClientTlsStrategy(Requests.context(trust)))
                        .build())
                .build();
        return (method, url, headers, body) -> {
            HttpUriRequestBase request = new HttpUriRequestBase(method, URI.create(url));
            headers.forEach(request::setHeader);
            if (body != null) request.setEntity(new ByteArrayEntity(body, null));
            return client.execute(request, response -> {
                EntityUtils.consume(response.getEntity());
                return response.getCode();
            });
        };
    }

    /** One channel; its answers come back one at a time. */
    private static Requests.Asker netty(TrustManagerFactory trust, URI to, SslProvider provider) throws Exception {
        SSLParameters all = Requests.context(trust).getSupportedSSLParameters();
        SslContext context = SslContextBuilder.forClient()
                .sslProvider(provider)
                // its own choice has no ChaCha20 for TLS 1.2
                .ciphers(List.of(all.getCipherSuites()), SupportedCipherSuiteFilter.INSTANCE)
                .trustManager(trust)
                .build();
        LinkedBlockingQueue<Integer> statuses = new LinkedBlockingQueue<>();
        ChannelInitializer<Channel> initializer = new ChannelInitializer<>() {
            @Override
            protected void initChannel(Channel channel) {
                channel.pipeline()
                        .addLast(context.newHandler(channel.alloc(), to.getHost(), to.getPort()))
                        .addLast(new HttpClientCodec())
                        .addLast(new HttpObjectAggregator(1 << 20))
                        .addLast(new SimpleChannelInboundHandler<FullHttpResponse>() {
                            @Override
                            protected void channelRead0(ChannelHandlerContext handler, FullHttpResponse response) {
                                statuses.add(response.status().code());
                            }
                        });
            }
        };
        Channel channel = new Bootstrap()
                .group(new MultiThreadIoEventLoopGroup(1, NioIoHandler.newFactory()))
                .channel(NioSocketChannel.class)
                .handler(initializer)
                .connect(to.getHost(), to.getPort())
                .sync()
                .channel();
        return (method, url, headers, body) -> {
            DefaultFullHttpRequest request = new DefaultFullHttpRequest(
                    HttpVersion.HTTP_1_1,
                    HttpMethod.valueOf(method),
                    URI.create(url).getPath(),
                    Unpooled.wrappedBuffer(body == null ? new byte[0] : body));
            request.headers().set("Host", to.getAuthority());
            if (body != null) request.headers().set("Content-Length", body.length);
            headers.forEach(request.headers()::set);
            channel.writeAndFlush(request).sync();
            return statuses.take();
        };
    }
}
